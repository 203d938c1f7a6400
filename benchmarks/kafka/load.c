/* One load through librdkafka, measured where the application would stand; prints one JSON line.
 *
 *   load produce BOOTSTRAP TOPIC PARTITIONS RECORDS SIZE RATE [KEY=VALUE ...]
 *   load consume BOOTSTRAP TOPIC PARTITIONS RECORDS [KEY=VALUE ...]
 *
 * `produce` sends RECORDS records to the partitions in turn, at RATE a second or, with 0, as fast
 * as the client's queue takes them. A record's latency runs from the moment at which it was due, so
 * that a stalled client does not hide what it stalls. The clock starts after one record a
 * partition: connections and the producer's id are not measured. `gap_ms` is the longest time
 * between two acknowledgements. `consume` reads from the beginning until it has RECORDS records.
 * KEY=VALUE are settings of librdkafka. CPU is that of this process while the clock ran.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "librdkafka.h"

enum { BATCH = 10000, FLUSH_MS = 120000, IDLE_MS = 30000, ERROR_BYTES = 512 };

typedef struct {
	const char *bootstrap, *topic;
	int partitions, settings;
	long records, size, rate;
	char **setting;
} arguments_t;

static uint64_t *due_ns;        /* by record: when it was due, then how long its ack took */
static uint64_t last_ack_ns, gap_ns;
static atomic_long acked, failed;
static atomic_int running = 1, last_error;

static void die(const char *what, const char *why)
{
	fprintf(stderr, "load: %s: %s\n", what, why);
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static double cpu_seconds(void)
{
	struct rusage used;
	getrusage(RUSAGE_SELF, &used);
	return (double)(used.ru_utime.tv_sec + used.ru_stime.tv_sec)
	       + (double)(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
}

/* Called on the polling thread alone, one record after another. */
static void delivered(rd_kafka_t *client, const rd_kafka_message_t *message, void *opaque)
{
	(void)client, (void)opaque;
	size_t number = (size_t)message->_private;
	if (message->err) {
		atomic_store(&last_error, message->err);
		atomic_fetch_add(&failed, 1);
	} else {
		uint64_t now = now_ns();
		if (now > last_ack_ns) { /* not one that came while the clock started */
			if (now - last_ack_ns > gap_ns)
				gap_ns = now - last_ack_ns;
			last_ack_ns = now;
		}
		due_ns[number] = now - due_ns[number];
	}
	atomic_fetch_add(&acked, 1);
}

static void *poll_reports(void *client)
{
	while (atomic_load(&running))
		rd_kafka_poll(client, 50);
	return NULL;
}

static rd_kafka_t *client_new(rd_kafka_type_t type, const arguments_t *told)
{
	char error[ERROR_BYTES];
	rd_kafka_conf_t *conf = rd_kafka_conf_new();
	if (rd_kafka_conf_set(conf, "bootstrap.servers", told->bootstrap, error, sizeof error))
		die("bootstrap.servers", error);
	for (int i = 0; i < told->settings; i++) {
		char *value = strchr(told->setting[i], '=');
		if (!value)
			die(told->setting[i], "not KEY=VALUE");
		*value++ = '\0';
		if (rd_kafka_conf_set(conf, told->setting[i], value, error, sizeof error))
			die(told->setting[i], error);
	}
	if (type == RD_KAFKA_PRODUCER)
		rd_kafka_conf_set_dr_msg_cb(conf, delivered);
	rd_kafka_t *client = rd_kafka_new(type, conf, error, sizeof error);
	if (!client)
		die("client", error);
	return client;
}

static void send_one(rd_kafka_topic_t *topic, const arguments_t *told, void *value, long number)
{
	int32_t partition = (int32_t)(number % told->partitions);
	if (rd_kafka_produce(topic, partition, RD_KAFKA_MSG_F_BLOCK, value, (size_t)told->size, NULL,
			     0, (void *)number))
		die("produce", rd_kafka_err2name(rd_kafka_last_error()));
}

static void send_all(rd_kafka_topic_t *topic, const arguments_t *told, void *value)
{
	uint64_t began = now_ns();
	for (long number = 0; number < told->records; number++) {
		if (told->rate) {
			uint64_t due = began + (uint64_t)number * 1000000000u / (uint64_t)told->rate;
			struct timespec until = {(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
			clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
			due_ns[number] = due;
		} else {
			due_ns[number] = now_ns();
		}
		send_one(topic, told, value, number);
	}
}

static int ascending(const void *left, const void *right)
{
	uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
	return (a > b) - (a < b);
}

static void warm_up(rd_kafka_t *client, rd_kafka_topic_t *topic, const arguments_t *told,
		    void *value)
{
	for (long number = 0; number < told->partitions; number++) {
		due_ns[number] = now_ns();
		send_one(topic, told, value, number);
	}
	rd_kafka_flush(client, FLUSH_MS);
	if (atomic_load(&failed) || atomic_load(&acked) != told->partitions)
		die("first records", rd_kafka_err2name(atomic_load(&last_error)));
	atomic_store(&acked, 0);
}

static void produce(const arguments_t *told)
{
	long slots = told->records > told->partitions ? told->records : told->partitions;
	char *value = malloc((size_t)told->size + 1);
	pthread_t poller;
	due_ns = calloc((size_t)slots, sizeof *due_ns);
	if (!due_ns || !value)
		die("memory", "none left");
	for (long i = 0; i < told->size; i++)
		value[i] = (char)(i * 131 % 251);
	rd_kafka_t *client = client_new(RD_KAFKA_PRODUCER, told);
	rd_kafka_topic_t *topic = rd_kafka_topic_new(client, told->topic, NULL);
	pthread_create(&poller, NULL, poll_reports, client);
	warm_up(client, topic, told, value);
	double cpu = cpu_seconds();
	uint64_t began = last_ack_ns = now_ns();
	gap_ns = 0;
	send_all(topic, told, value);
	rd_kafka_flush(client, FLUSH_MS);
	double seconds = (double)(now_ns() - began) / 1e9;
	cpu = cpu_seconds() - cpu;
	atomic_store(&running, 0);
	pthread_join(poller, NULL);
	qsort(due_ns, (size_t)told->records, sizeof *due_ns, ascending);
	printf("{\"records\": %ld, \"failed\": %ld, \"error\": \"%s\", \"seconds\": %.6f, "
	       "\"cpu_s\": %.4f, \"p50_ms\": %.4f, \"p99_ms\": %.4f, \"gap_ms\": %.3f}\n",
	       atomic_load(&acked), atomic_load(&failed), rd_kafka_err2name(atomic_load(&last_error)),
	       seconds, cpu, (double)due_ns[told->records / 2] / 1e6,
	       (double)due_ns[told->records * 99 / 100] / 1e6, (double)gap_ns / 1e6);
}

static void consume(const arguments_t *told)
{
	static rd_kafka_message_t *got[BATCH];
	rd_kafka_t *client = client_new(RD_KAFKA_CONSUMER, told);
	rd_kafka_topic_t *topic = rd_kafka_topic_new(client, told->topic, NULL);
	rd_kafka_queue_t *queue = rd_kafka_queue_new(client);
	for (int partition = 0; partition < told->partitions; partition++)
		if (rd_kafka_consume_start_queue(topic, partition, 0, queue))
			die("consume", rd_kafka_err2name(rd_kafka_last_error()));
	long count = 0;
	uint64_t began = 0;
	double cpu = 0;
	while (count < told->records) {
		ssize_t found = rd_kafka_consume_batch_queue(queue, IDLE_MS, got, BATCH);
		if (found <= 0)
			die("consume", "nothing came any more");
		if (!began) {
			began = now_ns();
			cpu = cpu_seconds();
		}
		for (ssize_t i = 0; i < found; i++) {
			if (got[i]->err && got[i]->err != -191) /* -191: the end of a partition */
				die("consume", rd_kafka_err2name(got[i]->err));
			count += !got[i]->err;
			rd_kafka_message_destroy(got[i]);
		}
	}
	printf("{\"records\": %ld, \"failed\": 0, \"error\": \"\", \"seconds\": %.6f, \"cpu_s\": %.4f}\n",
	       count, (double)(now_ns() - began) / 1e9, cpu_seconds() - cpu);
}

int main(int argc, char **argv)
{
	int producing = argc > 1 && !strcmp(argv[1], "produce");
	int fixed = producing ? 8 : 6;
	if (argc < fixed || (!producing && strcmp(argv[1], "consume")))
		die("usage", "produce|consume BOOTSTRAP TOPIC PARTITIONS RECORDS [SIZE RATE] [KEY=VALUE]");
	arguments_t told = {
		.bootstrap = argv[2], .topic = argv[3], .partitions = atoi(argv[4]),
		.records = atol(argv[5]), .setting = argv + fixed, .settings = argc - fixed,
	};
	if (told.partitions < 1 || told.records < 1)
		die("usage", "partitions and records are at least 1");
	if (producing) {
		told.size = atol(argv[6]);
		told.rate = atol(argv[7]);
		produce(&told);
	} else {
		consume(&told);
	}
	fflush(stdout);
	_Exit(0); /* the client would wait for its brokers */
}
