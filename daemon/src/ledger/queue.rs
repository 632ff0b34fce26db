//! What waits for the committer: apps take turns, so that who waits with much does not hold up who waits with little.
//!
//! Filled by `Ledger`, from beside requests, and emptied by the committer, which is one. A token that is slow seals few
//! changes in a batch: in one line an app whose requests fill its places would put everybody else's so many batches back.
//! The outcome of a guess that is charged goes first: its request has had its turn. Must never wait with the lock held, nor
//! lose a request while somebody waits for its answer.
//!
//! After a crash here: nothing that waits has happened, and nobody was told otherwise.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use custodyd_hsm::{Lane, Turns};
use tokio::sync::Notify;

use super::LedgerError;

struct Inside<T> {
    waiting: Turns<T>,
    /// Nobody can put anything in any more.
    left: bool,
    /// Nobody takes anything out any more.
    ended: bool,
}

struct Queue<T> {
    inside: Mutex<Inside<T>>,
    came: Notify,
}

impl<T> Queue<T> {
    fn inside(&self) -> MutexGuard<'_, Inside<T>> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Both ends of a queue for so many, beside outcomes.
pub(crate) fn queue<T>(capacity: usize) -> (Entrance<T>, Exit<T>) {
    let queue = Arc::new(Queue {
        inside: Mutex::new(Inside {
            waiting: Turns::new(capacity),
            left: false,
            ended: false,
        }),
        came: Notify::new(),
    });
    (Entrance(Arc::new(Door(Arc::clone(&queue)))), Exit(queue))
}

/// Where requests are put in; the last one that is dropped ends the committer.
pub(crate) struct Entrance<T>(Arc<Door<T>>);

impl<T> Clone for Entrance<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> std::fmt::Debug for Entrance<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Entrance").field(&self.len()).finish()
    }
}

struct Door<T>(Arc<Queue<T>>);

impl<T> Drop for Door<T> {
    fn drop(&mut self) {
        self.0.inside().left = true;
        self.0.came.notify_one();
    }
}

impl<T> Entrance<T> {
    /// # Errors
    /// `Busy` where its lane has no room; `Stopped`.
    pub(super) fn put(&self, lane: Lane, request: T) -> Result<(), LedgerError> {
        let queue = &self.0.0;
        let put = {
            let mut inside = queue.inside();
            if inside.ended {
                return Err(LedgerError::Stopped);
            }
            inside.waiting.push(lane, request)
        };
        // What was refused is dropped without the lock.
        put.map_err(|_| LedgerError::Busy)?;
        queue.came.notify_one();
        Ok(())
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.0.0.inside().waiting.len()
    }
}

/// Where the committer takes them out.
pub(crate) struct Exit<T>(Arc<Queue<T>>);

impl<T> Exit<T> {
    /// Adds those whose turn it is, so many at the most, once there is one; none where there will be none any more. Loses
    /// nothing where it is given up.
    pub(super) async fn take(&mut self, into: &mut Vec<T>, most: usize) -> usize {
        loop {
            let before = into.len();
            let left = {
                let mut inside = self.0.inside();
                let turns = std::iter::from_fn(|| inside.waiting.pop());
                into.extend(turns.take(most));
                inside.left
            };
            if into.len() > before || left {
                return into.len() - before;
            }
            // Who has come since has left a word.
            self.0.came.notified().await;
        }
    }

    /// The next one, if there is one.
    pub(super) fn try_take(&mut self) -> Option<T> {
        self.0.inside().waiting.pop()
    }
}

impl<T> Drop for Exit<T> {
    fn drop(&mut self) {
        let waiting = {
            let mut inside = self.0.inside();
            inside.ended = true;
            inside.waiting.take_all()
        };
        // Whoever waits for an answer hears that there will be none.
        drop(waiting);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::sync::Weak;

    use super::*;

    const NOTES: Lane = Lane::Of(1);
    const WALLET: Lane = Lane::Of(2);

    #[tokio::test]
    async fn apps_take_turns_and_outcomes_go_first() {
        let (entrance, mut exit) = queue(64);
        for number in 0..20 {
            entrance.put(NOTES, number).unwrap();
        }
        entrance.put(WALLET, 20).unwrap();
        entrance.put(Lane::First, 21).unwrap();
        let mut taken = Vec::new();
        assert_eq!(exit.take(&mut taken, 3).await, 3);
        assert_eq!((&taken[..], entrance.len()), (&[21, 0, 20][..], 19));
        assert_eq!(exit.try_take(), Some(1));
    }

    #[tokio::test]
    async fn an_app_has_no_more_room_than_it_leaves() {
        let (entrance, exit) = queue(8);
        let there = Arc::new(());
        let mut waiting: Vec<Weak<()>> = Vec::new();
        while entrance.put(NOTES, Arc::clone(&there)).is_ok() {
            waiting.push(Arc::downgrade(&there));
        }
        assert_eq!(waiting.len(), 4);
        entrance.put(WALLET, Arc::clone(&there)).unwrap();
        // What was charged has room of its own.
        entrance.put(Lane::First, Arc::clone(&there)).unwrap();
        assert_eq!(Arc::strong_count(&there), 7);
        // Nobody waits for who has ended.
        drop(exit);
        assert_eq!(Arc::strong_count(&there), 1);
        let ended = entrance.put(NOTES, there);
        assert!(matches!(ended, Err(LedgerError::Stopped)));
    }

    #[tokio::test]
    async fn the_last_entrance_is_the_end_once_everything_is_taken() {
        let (entrance, mut exit) = queue(8);
        let other = entrance.clone();
        entrance.put(NOTES, 1).unwrap();
        drop(entrance);
        let mut taken = Vec::new();
        assert_eq!(exit.take(&mut taken, 8).await, 1);
        let end = tokio::spawn(async move { exit.take(&mut Vec::new(), 8).await });
        tokio::task::yield_now().await;
        assert!(!end.is_finished());
        drop(other);
        assert_eq!(end.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_comes_while_somebody_waits_is_taken_and_a_wait_that_is_given_up_takes_nobody() {
        let (entrance, mut exit) = queue(8);
        for number in 0..100 {
            let mut none = Vec::new();
            tokio::select! {
                biased;
                _ = exit.take(&mut none, 8) => panic!("there is nobody"),
                () = tokio::task::yield_now() => {}
            }
            let adding = entrance.clone();
            let add = tokio::spawn(async move { adding.put(NOTES, number) });
            let mut taken = Vec::new();
            assert_eq!(exit.take(&mut taken, 8).await, 1);
            assert_eq!(taken, [number]);
            add.await.unwrap().unwrap();
        }
    }
}
