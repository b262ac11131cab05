//! Requests that are made again, and what the group knows of them.

use commands::CommandError;
use wire::resp::Reply;
use wire::service::{Answer, Request};

use super::Core;
use crate::batch::{Batch, Effect};
use crate::requests::{self, Found};

impl Core {
    /// What the open batch has just answered is to be known again.
    pub(super) fn note_request(&mut self, reply: &Reply) {
        if let (Some(id), Some(open)) = (self.asker.request, &mut self.open) {
            open.builder.requests().add(id, reply);
        }
    }

    /// The answer to a request that was made before, unless it was not done; to be asked of a leader that
    /// has applied all that it inherited.
    pub(super) fn done_before(&mut self, Request { id, again }: Request) -> Option<Answer> {
        let from = again?;
        let proposed =
            self.in_flight.iter().filter(|batch| batch.index >= from).find_map(|batch| {
                let mut found = None;
                let batch_of = Batch::decode(&batch.bytes).ok()?;
                let visited = batch_of.for_each(|effect| {
                    if let Effect::Requests(section) = effect {
                        found = requests::find(section, id);
                    }
                });
                visited.expect("this leader has made it");
                Some((batch.index, found?))
            });
        let open = self.open.as_mut();
        let open = open.and_then(|open| Some((open.index, open.builder.requests().find(id)?)));
        let (index, reply) = match proposed.or(open) {
            Some(found) => found,
            None => match self.requests.find(id, from) {
                Found::Done(index, reply) => (index, reply),
                Found::Not => return None,
                Found::Forgotten => {
                    let reply = CommandError::UNCERTAIN.into();
                    return Some(Answer::Done { reply, gate: None });
                }
            },
        };
        let gate = self.gate_at(index);
        Some(match reply {
            Some(reply) => Answer::Done { reply, gate },
            None => Answer::DoneBefore(gate),
        })
    }
}
