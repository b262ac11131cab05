//! What faults do.

use std::sync::Arc;

use wire::ids::{NodeId, PartitionId};

use super::agree::place_of;
use super::faults::Fault;
use super::world::{Event, PARTITIONS, World, Wound};
use super::{MEMDS, Summary};

/// Reads that come back wrong, of a thousand, while they do.
const MISREADS_PER_MILLE: u64 = 300;
/// Members that a group keeps when an operator removes one.
const MEMBERS_MIN: usize = 3;
/// Where the records of a segment begin, in bytes.
const RECORDS_AT: usize = 8192;

impl World<'_> {
    pub(super) fn fault(&mut self) {
        if self.calm {
            return;
        }
        let nodes = self.seats.seats.len();
        let places = nodes + MEMDS.len() + 2;
        let partition = self.random.pick(&PARTITIONS);
        let leader = self.leader(partition);
        if self.amnesia.needs_peace_until().is_none()
            && let Some(fault) = self.faults.next((nodes, places), leader)
        {
            self.note(|| format!("FAULT {fault:?}"));
            self.summary.faults += 1;
            self.strike(fault);
        }
        let gap = self.faults.gap_us();
        self.after(gap, Event::Fault);
    }

    /// The node that leads a partition, as it thinks.
    pub(super) fn leader(&self, partition: PartitionId) -> Option<usize> {
        self.seats.seats.iter().position(|seat| {
            let replicas = seat.with(|stepped| stepped.replicas()).unwrap_or_default();
            replicas.iter().any(|seen| seen.partition == partition && seen.leads)
        })
    }

    fn strike(&mut self, fault: Fault) {
        let seats = Arc::clone(&self.seats);
        match fault {
            Fault::Crash { node, power, down_us } => self.crash(node, power, down_us),
            Fault::CrashAtDisk { node, operations, down_us } => {
                self.agendas[node].down_us = down_us;
                seats.seats[node].disk.set_fuse(Some(operations));
            }
            Fault::CrashAtFrame { node, frames, down_us } => {
                self.agendas[node].down_us = down_us;
                self.ether.set_fuse(node, Some(frames));
            }
            Fault::Blackout { down_us } => {
                for node in 0..seats.seats.len() {
                    let stagger = self.random.skewed(1, 500_000);
                    self.crash(node, true, down_us + stagger);
                }
            }
            Fault::Pause { node, for_us } => seats.seats[node].pause(self.now.get() + for_us),
            Fault::Split { set } => self.ether.network(|network| network.split(set)),
            Fault::CutOneWay { from, to } => self.ether.network(|network| network.cut(from, to)),
            Fault::Isolate { node, inbound } => self.ether.network(|network| {
                for other in (0..seats.seats.len()).filter(|other| *other != node) {
                    match inbound {
                        true => network.cut(other, node),
                        false => network.cut(node, other),
                    }
                }
            }),
            Fault::Join => self.ether.network(|network| network.join()),
            Fault::SlowDisk { node, sync_us } => self.sync_us[node] = sync_us,
            Fault::SyncFails { node, down_us } => {
                self.agendas[node].down_us = down_us;
                seats.seats[node].disk.set_sync_fails(true);
            }
            Fault::Full { node, for_us } => {
                seats.seats[node].disk.set_full(true);
                self.after(for_us, Event::NotFull { node });
            }
            Fault::Misread { node, for_us } => {
                seats.seats[node].disk.set_misreads(MISREADS_PER_MILLE);
                self.after(for_us, Event::ReadsWell { node });
            }
            Fault::SetWall { node, off_ms } => seats.seats[node].clock.set_wall(off_ms),
            Fault::Campaign { node } => {
                for partition in PARTITIONS {
                    seats.seats[node].with(|stepped| stepped.node().campaign(partition));
                }
            }
            Fault::Transfer { .. } | Fault::Order { .. } => self.order(fault),
            Fault::FlipLog { .. } | Fault::FlipRows { .. } | Fault::Wipe { .. } => {
                self.lose(fault);
            }
        }
    }

    /// What an operator wants of a group's leader.
    fn order(&mut self, fault: Fault) {
        let partition = self.random.pick(&PARTITIONS);
        let Some(leader) = self.leader(partition) else { return };
        let members = self.members(partition).unwrap_or_default();
        let seats = &self.seats.seats;
        seats[leader].with(|stepped| match fault {
            // Refused where it cannot be; the outcome is nobody's concern.
            Fault::Transfer { to } => {
                drop(stepped.node().hand_over(partition, NodeId(to as u32 + 1)));
            }
            Fault::Order { node, add, log } => {
                let node = NodeId(node as u32 + 1);
                let change = match add {
                    true => storage::Change::Add { node, log },
                    false if members.len() <= MEMBERS_MIN || node.0 as usize == leader + 1 => {
                        return;
                    }
                    false => storage::Change::Remove { node },
                };
                drop(stepped.node().change_members(partition, change));
            }
            _ => {}
        });
    }

    /// A node loses what it had made durable, if all others have it, and none of them has a damaged row
    /// still, known or not: of two copies that are damaged, the third may be the next to go. Whether it was
    /// struck.
    pub(super) fn lose(&mut self, fault: Fault) -> bool {
        let (Fault::FlipLog { node, .. } | Fault::FlipRows { node, .. } | Fault::Wipe { node, .. }) =
            fault
        else {
            return false;
        };
        if self.wound.as_ref().is_some_and(|wound| !self.is_whole(&wound.newest, None)) {
            return false;
        }
        self.wound = None;
        let newest = self.watch.newest_of_all();
        if !self.is_whole(&newest, Some(node)) || self.is_another_damaged(node) {
            return false;
        }
        self.wound = Some(Wound { newest });
        let seats = Arc::clone(&self.seats);
        self.flipped[node] |= !matches!(fault, Fault::Wipe { .. });
        let disk = &seats.seats[node].disk;
        let Summary { damaged, wiped, .. } = &mut self.summary;
        match fault {
            Fault::FlipRows { in_file: false, at, .. } => {
                let struck = seats.seats[node].with(|stepped| stepped.damage_row(at));
                *damaged += u64::from(struck == Some(true));
            }
            Fault::FlipRows { down_us, .. } => {
                *damaged += 1;
                self.crash(node, false, down_us);
                disk.flip(|name| name == "rows", 0);
            }
            Fault::FlipLog { bits, at_end, down_us, .. } => {
                *damaged += bits;
                self.crash(node, false, down_us);
                for _ in 0..bits {
                    let is_segment =
                        |name: &str| name.starts_with("wal-") && name.ends_with(".seg");
                    let place = match at_end {
                        true => disk.flip_before_end(RECORDS_AT),
                        false => disk.flip(is_segment, RECORDS_AT),
                    };
                    if let Some(place) = place {
                        self.note(|| format!("a bit changes in {place}"));
                    }
                }
            }
            Fault::Wipe { down_us, .. } => {
                *wiped += 1;
                self.crash(node, true, down_us);
                disk.wipe();
            }
            _ => {}
        }
        true
    }

    /// Whether a row is damaged on another node. All are read for that, as by a scrub: what was damaged
    /// unnoticed is about to be healed from here on.
    fn is_another_damaged(&self, node: usize) -> bool {
        let others = self.seats.seats.iter().enumerate().filter(|(at, _)| *at != node);
        let damaged = others.map(|(_, seat)| seat.with(|stepped| stepped.is_damaged()));
        damaged.fold(false, |any, damaged| any | (damaged == Some(true)))
    }

    /// Whether all members of all groups, but for those on one node, run and have applied so much; and
    /// are most of their group.
    pub(super) fn is_whole(&self, newest: &[u64], without: Option<usize>) -> bool {
        PARTITIONS.iter().zip(newest).all(|(partition, newest)| {
            let Some(members) = self.members(*partition) else { return false };
            let others = members.iter().filter(|identity| Some(place_of(**identity)) != without);
            let holds = |identity: &&u32| {
                let seen = self.seen(place_of(**identity), *partition, **identity);
                seen.is_some_and(|seen| seen.applied >= *newest)
            };
            others.clone().count() * 2 > members.len() && others.clone().all(|it| holds(&it))
        })
    }
}
