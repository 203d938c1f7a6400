"""The holes: what the protocol would do if a rule of docs/protocol.md were missing.

A hole is named by the number of its rule; letters tell apart several ways to break one rule. The
step function is given the set of open holes; empty means that every rule holds.
"""

from __future__ import annotations

from typing import NamedTuple


class Hole(NamedTuple):
    """What happens without the rule, the bounds that show it, the guarantee it breaks."""

    instead: str
    bounds: str
    breaks: str


HOLES = {
    "1": Hole("a failed write leaves the table ahead of the log", "writes", "G2"),
    "1b": Hole("the table follows the log some time later", "retries", "G1"),
    "2": Hole("waiting requests outlive the leader's term", "terms", "G6"),
    "2b": Hole('waiting requests are answered "not stored"', "retries", "G6"),
    "3": Hole("truncation leaves the table as it was", "rewind", "G2"),
    "4": Hole("expiry changes the leader's table, not the log", "expiry", "G5"),
    "4b": Hole("expiry leaves no floor", "expiry", "G3"),
    "5": Hole("a follower that applied wrongly acks all the same", "digest", "G1"),
    "5b": Hole("a joiner needs to reach the high watermark only", "members", "G1"),
    "6": Hole("the sequence alone makes a duplicate", "reuse", "G6"),
    "6b": Hole("a duplicate is acknowledged before its original", "retries", "G7"),
    "6c": Hole("what lies below a floor is refused without a fence", "expiry", "G1"),
    "6d": Hole("an unknown producer may start anywhere", "retries", "G2"),
    "6e": Hole("47 is answered before the fence is committed", "expiry", "G1"),
    "6f": Hole("45 is answered without having heard from all members", "renumber", "G1"),
    "7": Hole("a replica that cut synced data is not doubtful", "damage", "G1"),
    "7b": Hole("one more restart forgets the doubt", "damage", "G1"),
    "7c": Hole("a report names the epoch of the term, not of the last batch", "damage", "G1"),
    "7d": Hole("a report covers what is not synced", "damage", "G1"),
    "7e": Hole("a report comes from one that still follows an older epoch", "doubt", "G1"),
    "7f": Hole("a replica that cannot read what it synced may lead", "rot", "G1"),
    "8": Hole("acks of an older stream count", "wipe", "G1"),
    "8b": Hole("what a follower kept counts, synced or not", "restart", "G1"),
    "8c": Hole("a sync result from before a truncation counts", "restart", "G1"),
    "8g": Hole("a state sent to a follower is of another offset than its data", "begins", "G5"),
    "8h": Hole("a log start passes the high watermark", "deletes", "G1"),
    "8i": Hole("a deletion is answered before every member has taken it", "deletes", "G4"),
    "9": Hole("a restarted leader goes on in its epoch", "restart", "G1"),
    "9b": Hole("another directory stays a member", "wipe", "G1"),
    "9c": Hole("the store does not compare the registration vouched for", "wipe", "G1"),
    "9d": Hole("a follower goes back to the leader of an older epoch", "elections", "G1"),
    "9e": Hole("a restart forgets which epoch was the last", "elections", "G1"),
    "10": Hole("the in-sync set may shrink to one", "alone", "G1"),
    "10b": Hole("a member counts no more once its removal is asked for", "members", "G1"),
    "10c": Hole("a member counts only once its addition is confirmed", "members", "G1"),
    "10d": Hole("a leader overwrites whatever the value is now", "members", "G1"),
    "11": Hole("the silence of a suspect passes for its report", "power", "G1"),
    "11b": Hole("an election keeps the epoch, the old leader being dead", "restart", "G1"),
    "14": Hole("a failed sync is tried again and believed", "syncs", "G1"),
}

# Found unnecessary for safety while rules 7 and 9 hold; kept as a second line against a loss that
# nobody noticed. See docs/decisions/protocol-model.md.
SPARE = {"8d": Hole("a member opens a stream below the high watermark", "wipe", "G1")}
