"""Every bound of the system: one constant a line, with its unit and the reason for its value.

Owns: numbers only. Whoever enforces a bound answers with the protocol's error where it has one
(docs/protocol.md, rule 12). Defaults that an operator may change live in `cluster.config`.
"""

from __future__ import annotations

# Wire
FRAME_BYTES_MAX = 100 * 1024 * 1024  # bytes of one request or response: Kafka's socket.request.max
BATCH_BYTES_MAX = 1_048_588  # bytes of one batch with its header: Kafka's default max.message.bytes
WIRE_ELEMENTS_MAX = 1_000_000  # array elements of one message: each becomes an object in memory
DECOMPRESSED_BYTES_MAX = (
    64 * BATCH_BYTES_MAX
)  # bytes out of one compressed batch: a bomb stops here
LOOKED_INTO_BYTES_MIN = 8 * 1024 * 1024  # bytes out of any batch that a broker looks into: 10 ms
LOOKED_INTO_GROWTH = 8  # times its own size that a larger batch may become there
LOOKED_INTO_BYTES_PER_TURN = 16 * 1024 * 1024  # bytes out of all in a turn: a turn is short

# Producing
IN_FLIGHT_MAX = 5  # produce requests a client has unanswered per partition, as Kafka's clients
PRODUCER_BATCHES_KEPT = 5  # batches remembered per producer and partition, as Kafka's brokers
assert IN_FLIGHT_MAX <= PRODUCER_BATCHES_KEPT, "a retry must still be recognised"
SEQUENCE_COUNT = 2**31  # sequence numbers before they wrap to 0 (a non-negative int32)
PRODUCER_EPOCH_MAX = 32_767  # the last epoch of an id (int16); then a new id is needed
PRODUCER_ID_BLOCK = 1000  # ids a broker takes from the controller at once, as Kafka's
REFUTED_IDS_MAX = 1_000  # ids kept that nobody ever handed out: a client retries few at a time
RECORD_BYTES_LARGE = 16 * 1024  # bytes of key or value that make a client look at a batch's room
RETRANSMIT_MS_MIN = 100  # ms before an unanswered batch is sent again, at least: a pause is no loss
RETRY_BACKOFF_MS = 10  # ms before the second attempt after an error; doubles with each one
RETRY_BACKOFF_MS_MAX = 500  # ms between attempts, at most
METADATA_BACKOFF_MS = 50  # ms between two questions for a missing leader
GAP_ANSWERS_MAX = 5  # answers 45 that only a deposed leader explains before a batch is given up

# Topics
TOPIC_NAME_LENGTH_MAX = 249  # characters: directory name limit 255 minus "-" and five digits
PARTITIONS_PER_TOPIC_MAX = 10_000  # one create request must not exhaust files and memory
TOPICS_PER_REQUEST_MAX = 1_000  # topics one admin request may name
REPLICAS_PER_BROKER_MAX = 12_000  # replicas: each is 10 KB of memory when idle
REPLICAS_MAX = 15  # replicas of a partition: the in-sync set is one small value in the store

# Between brokers
PEER_CREDIT_BYTES = 8 * 1024 * 1024  # bytes a peer may send before it is granted more
PUSH_BYTES_MAX = 1024 * 1024  # bytes of one catch-up push: keeps a turn short; one batch may exceed

APPEND_TIMES_MAX = 512  # points of one partition's append times, 16 bytes and two objects each
PRODUCERS_PAGE = 250  # producers in a page with all that is known of them: a page takes 1 ms
PRODUCERS_SHOWN = 1_000  # producers of a partition that a Kafka client sees, without pages: 3 ms
PRODUCERS_LISTED_MAX = 10_000  # producers in one answer over all partitions asked about
DELETE_RECORDS_MS_MAX = 60_000  # ms a wish to delete records waits for the in-sync replicas
AUTO_CREATE_MS = 5_000  # ms a question about topics waits until they are made
AUTO_CREATES_MAX = 1_000  # such questions at once, and topics that one of them makes
LEADER_WAIT_MS = 300  # ms a question for a lost leader waits for the next: six times an election
LOST_LISTED_MS = 2_000  # ms a lost broker stays in answers: clients move off it before they drop it
LEADER_WAITS_MAX = 1_000  # such questions at once; the others are told what is known
FORWARDS_MAX = 1_000  # requests of clients that one broker has under way to the controller
FORWARD_BYTES_MAX = 1024 * 1024  # bytes of one of them: 1,000 topics with settings fit
FORWARDED_BYTES_MAX = 16 * 1024 * 1024  # bytes of all of them, which are kept until the answer
FORWARD_MS = 10_000  # ms a request waits for a controller and its answer: clients allow 30,000
CONFIG_TRIES = 3  # times a change of settings is tried again when another write was faster
FORWARD_PAUSE_MS = 50  # ms before a controller is looked for again after "not me"

# Fetching
FETCH_BYTES_MAX = 8 * 1024 * 1024  # bytes of one fetch answer at most: read in one step of the loop
FETCH_WAIT_MS_MAX = 60_000  # ms a fetch may stay parked
PARKED_FETCHES_MAX = 10_000  # fetches one broker keeps parked over all connections
PARKED_PARTITIONS_MAX = 1_000_000  # partitions that these name in all, about 200 bytes each

# Storage
LOG_TAIL_BYTES = 1024 * 1024  # bytes of a log kept in memory for readers at its end, per partition
TAIL_CHUNK_BYTES = 64 * 1024  # bytes of small appends gathered in one buffer for those readers
READ_MEMORY_BYTES = 32 * 1024 * 1024  # bytes of tails and loaded indexes over all logs of a broker
READ_BYTES_MAX = 2 * 1024 * 1024  # bytes of one read of a log for a fetch: copying takes 0.3 ms
READS_BYTES_MAX = 64 * 1024 * 1024  # bytes that read workers may hold at once: beyond, reads wait
READ_THREADS = 4  # reads of the disk at once: enough to keep a device with a queue busy
READ_POOL_BYTES = 16 * 1024 * 1024  # bytes of read buffers kept for the next read
INDEX_BYTES_AT_ONCE = 16 * 1024  # bytes of an index looked at in place: larger ones are loaded
SCAN_WINDOW_BYTES = 4 * 1024 * 1024  # bytes read at once to check or replay a segment
INDEX_BYTES_MAX = 10 * 1024 * 1024  # bytes of an index file, then a segment is full: as Kafka's
OPEN_FILES_MAX = 1_000  # segment files one broker keeps open; more only while bytes are unsynced
OPEN_SEGMENTS_MAX = 4  # files per log held open only for reading; the active one comes on top
CUT_BYTES_KEPT = 64 * 1024 * 1024  # bytes kept of what one cut took from the end of a segment
CUTS_KEPT = 2  # cuts per log of which the bytes are kept: the newest, and the one before
RETENTION_MS = 7 * 24 * 3600 * 1000  # ms a record is kept: Kafka's default, a week
RETENTION_CHECK_MS = 300_000  # ms in which every log is asked once what may go: Kafka's default
SEGMENTS_DROPPED_PER_LOOK = 8  # segments renamed away at one look, 1 ms each: a step is short
DELETE_DELAY_MS = 60_000  # ms until a deleted file's bytes go, for who still reads: Kafka's default
SNAPSHOTS_KEPT = 3  # newest snapshots of producers kept per log: the last may be torn or cut off

# Metadata store
STORE_KEY_LENGTH_MAX = 512  # characters: the longest key is "topics/" and a topic name
STORE_VALUE_BYTES_MAX = 1024 * 1024  # bytes of one value: etcd refuses requests above 1.5 MB
STORE_WRITES_MAX = PARTITIONS_PER_TOPIC_MAX + 1  # writes of one transaction: a whole topic fits
STORE_QUEUE_MAX = 10_000  # calls waiting for the store thread: beyond, StoreBusy at once
STORE_GROUP_MAX = 64  # calls that share one commit: bounds what an unknown outcome leaves open
STORE_POLL_MS = 50  # ms between looks for changes of other processes: half the lag allowed below
STORE_SURE_LOOK_MS = 1_000  # ms between looks that take the lock though nothing was announced
STORE_BUSY_MS = 3_000  # ms a call waits for a lock: the supervisor ends a stopped holder in 2,000
STORE_BLOCKED_MS = 250  # ms without the lock before it is reported, and between reports
STORE_RETRY_MS = 100  # ms before a write that the store refused is reported and asked again
STORE_TOLD_MS = 10_000  # ms between two log lines of one kind of trouble: its disk may be full
STORE_TOMBSTONES_KEPT = 4_096  # revisions a deletion is remembered; older copies are read anew
STORE_LEASE_LAG_MS = 200  # ms after a lease's end by which every process has seen its keys go
LEASE_PULSES = 4  # times a lease is kept alive within its time: a late one or two cost nothing
LEASE_MS_MIN = 100  # ms: below, ordinary scheduling delays would end leases
LEASE_SLOTS = 65_536  # leases whose pulses do not overwrite each other: a sparse file of 2 MiB
LEASE_MS_MAX = 3_600_000  # ms: a lease is a failure detector, an hour is none

# Sockets
ENDPOINT_MESSAGES_PER_TURN = 1024  # frames taken of one socket in one loop turn: a turn is short
ENDPOINT_BYTES_PER_TURN = 16 * 1024 * 1024  # bytes likewise; one message may exceed it
GATHERED_FRAMES_MAX = 256  # requests or answers in one message: sockets work by message
GATHERED_BYTES = 256 * 1024  # bytes likewise: the first frame waits for the last on its way
CLIENT_UNANSWERED_MAX = 65_536  # requests of one ZeroMQ client unanswered, about 1 KB each
ROUTER_QUEUE_MESSAGES = 1_000  # messages queued for one ZeroMQ client that does not read
HANDSHAKE_MS = 500  # ms to connect and greet: a stopped process accepts, its kernel does, but mute

# Kafka's clients
KAFKA_CONNECTIONS_MAX = 16_384  # connections of one listener: a descriptor and 8 KB each
KAFKA_BACKLOG = 1_024  # connections the kernel keeps until they are accepted: a cluster reconnects
KAFKA_SLAB_BYTES = 256 * 1024  # bytes that all connections receive into: stays in the cache
KAFKA_IN_FLIGHT_MAX = 256  # produce requests of one connection unanswered; then it is not read
KAFKA_IN_FLIGHT_BYTES = 16 * 1024 * 1024  # bytes of these; one frame may exceed it
KAFKA_REQUESTS_PER_TURN = 64  # requests one connection has taken per turn: the others wait for it
KAFKA_BYTES_PER_TURN = 1024 * 1024  # bytes likewise
KAFKA_LARGE_BYTES = 256 * 1024 * 1024  # bytes of large frames under way: half for those to 2 MiB
KAFKA_FRAME_MS = 30_000  # ms a frame may take to arrive, and a second more for each of the next
KAFKA_BYTES_PER_S_MIN = 256 * 1024  # bytes: the slowest sender of a large frame
KAFKA_UNREAD_MS = 30_000  # ms a client may leave its answers unread without taking a byte
KAFKA_LOOK_MS = 1_000  # ms between looks at what takes too long
KAFKA_KEEPALIVE_S = 60  # s a connection may be silent before the kernel asks whether it is alive

# Replication
OFFSET_MAX = 2**62  # offsets beyond are none: whatever is added to one stays a 64-bit number
LEADER_EPOCH_MAX = 2**30  # leader epochs: half of what fits, so that any reported can be exceeded
REJOIN_MS = 1_000  # ms a follower must keep up before it may join the in-sync replicas again
PROPOSAL_RETRY_MS = 100  # ms before a change with an unknown outcome is asked again
STREAM_RETRY_MS = 500  # ms before a follower that got no answer opens another stream

# Membership
CONNECT_MS = 1_000  # ms a registered broker has to become reachable before it counts as gone
REREGISTER_MS = 50  # ms, doubled each time, before a broker declared dead by mistake comes back
REREGISTER_STEADY_MS = 30_000  # ms of service after which the back-off begins anew
REREGISTER_MS_MAX = 5_000  # ms that this back-off may reach
STATE_QUERY_MS = 250  # ms the controller waits for in-sync members before it elects among answers
ELECTIONS_PER_COMMIT = 200  # partitions whose leaders one transaction decides
LOOK_MS = 100  # ms between regular looks at what time alone changes
HANDOVER_MS = 1_500  # ms an orderly stop waits for its leaders to be taken over

# Serving
PRODUCE_WAIT_MS_MAX = 300_000  # ms a produce request may wait for its acknowledgement
FREED_BYTES_KEPT = 32 * 1024 * 1024  # bytes a heap keeps for the next turn: a turn's buffers
MAPPED_ALONE_BYTES = 16 * 1024 * 1024  # bytes from which one buffer goes back at once: none usual
HARM_AFTER_MS = 20  # ms between an ordered fault and its effect: the answer leaves first
STOP_MS = 8_000  # ms an orderly stop may take in all; the supervisor kills after 10,000
LINGER_MS = 200  # ms the last answers of a stopping broker have to leave its sockets
DISK_WORK_PER_STEP = 8  # terms begun in one step, 0.2 ms each: a step must be short
EPOCH_FILES_PER_LOOK = 8  # files of leader epochs written at one look: making a file may take ms
CLOSED_PER_STEP = 2  # logs an orderly stop closes in one step, five syncs each
OFFLINE_TRIES = 8  # replicas tried again at one look that the disk did not let open
SCRUB_BYTES_PER_SECOND = 8 * 1024 * 1024  # default: 675 GB a day, for less than 1 % of a core
SCRUB_PIECE_BYTES = 256 * 1024  # bytes the scrubber reads at once: some 0.1 ms to check
SCRUB_LOGS_PER_LOOK = 64  # logs passed in one go when there is nothing to read in them
SCRUB_ROUND_MS = 3_600_000  # ms between two rounds of the scrubber over all logs, at least
OPEN_BYTES_PER_STEP = 8 * 1024 * 1024  # bytes of logs read at opening in one step: some 4 ms
OPEN_BYTES_OF_LOG = 2 * 1024 * 1024  # as many bytes as the calls for one log's files are worth
DISK_WORK_OF_NEW_LOG = 4  # what one of these is worth: its files may wait for the file system
DISK_WORK_OF_LOG = 8  # as many of them as removing a log is worth, by its syncs
CHECKPOINT_MS = 5_000  # ms between offset checkpoints: bounds what recovery must read again

# Metrics
METRIC_PARTITIONS_MAX = 200  # partitions with series of their own on one broker; the rest share one
METRICS_CONNECTIONS_MAX = 16  # scrapes served at once: there are two or three scrapers
METRICS_REQUEST_BYTES_MAX = 8 * 1024  # bytes of one HTTP request head, as common servers allow
METRICS_REQUEST_MS = 5_000  # ms one scrape may take: Prometheus gives up after 10,000

# Load
LEDGER_ROWS_MAX = 1_000_000  # rows of a ledger file: every row is kept in memory, about 1 KB each

# Client
CLIENT_PATIENCE_MS = 5_000  # ms a request looks for a broker that answers before it gives up
CLIENT_METADATA_MS = 500  # ms one broker has to answer for metadata before another is asked
CLIENT_PAUSE_MS = 50  # ms before asking again what was refused for the moment
CLIENT_REQUEST_MS = 10_000  # ms one broker has to answer an admin or offset request

# Producer state
PRODUCER_EXPIRATION_MS = 86_400_000  # ms an idle producer is remembered: Kafka's default, a day
PRODUCER_BYTES_MAX = 512 * 1024 * 1024  # bytes of all producers a broker leads: some 5 million
PRODUCER_BUDGET_MS = 1_000  # ms between looks at how much of that is used: 12,000 tables take 5 ms
FLOORS_MAX = 100_000  # expired producers with a floor each, per partition: a collapse takes 1 ms
IDS_AT_ONCE = 10_000  # producers, or floors, of which a copy is made at once: some 5 MB
FLOORS_COLLAPSED = 50_000  # floors that one batch turns into the mark

# Consumer groups
GROUP_NEW_MEMBER_MS = 300_000  # ms a first join may wait for its generation, as Kafka's
GROUP_MEMBER_BYTES_MAX = 256 * 1024  # bytes of assignors and metadata in one join: kept per member
GROUP_RECORD_BYTES_MAX = 8 * 1024 * 1024  # bytes of one group's record: a batch of the topic
GROUPS_MAX = 100_000  # groups that one broker coordinates, about 1 KB each without members
COMMITTED_OFFSETS_MAX = 2_000_000  # offsets that one broker keeps for them, about 300 bytes each
GROUP_WRITES_MAX = 50_000  # writes of one coordinator's partition that wait to be committed
GROUP_COMMIT_MS = 5_000  # ms a commit waits for the replicas: Kafka's offsets.commit.timeout.ms
GROUP_BATCH_BYTES = 256 * 1024  # bytes of records gathered in one batch of the internal topic
GROUP_SLICE_BYTES = 64 * 1024  # bytes of state read, or written anew, in one step: about 3 ms
GROUP_LOG_BYTES = 4 * 1024 * 1024  # bytes appended before the state is written anew, at least
GROUP_SEGMENT_BYTES = 1024 * 1024  # bytes of a segment of the internal topic: what is freed at once
GROUP_EXPIRY_LOOK_MS = 60_000  # ms between looks for offsets that nobody reads from any more
