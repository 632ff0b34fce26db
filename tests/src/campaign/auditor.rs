//! An auditor who follows the log while everything fails: each checkpoint continues the one before, and what receipts
//! promised stands where they said.

use std::sync::Arc;
use std::time::Duration;

use tlog_tiles::{Hash, node_hash};

use super::notebook::{Count, Notebook};
use crate::log::{Auditor, CREDENTIAL, Checkpoint, Verifier, part, root_of, tile};

/// Roots of the full trees that the leaves so far are made of, and how many leaves each has: the largest first.
#[derive(Debug, Default)]
struct Frontier(Vec<(u64, Hash)>);

impl Frontier {
    fn push(&mut self, leaf: Hash) {
        let (mut size, mut root) = (1, leaf);
        while let Some(&(before, left)) = self.0.last()
            && before == size
        {
            self.0.pop();
            (size, root) = (2 * size, node_hash(left, root));
        }
        self.0.push((size, root));
    }

    fn root(&self) -> Option<Hash> {
        let roots = self.0.iter().rev().map(|(_, root)| *root);
        roots.reduce(|right, left| node_hash(left, right))
    }
}

/// What the nodes together have shown of the log.
#[derive(Debug, Default)]
struct Read {
    leaves: Vec<Hash>,
    frontier: Frontier,
    /// The last smaller checkpoint that was found to be of this log: a node that lags shows one again and again.
    smaller: Option<Checkpoint>,
}

impl Read {
    fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn push(&mut self, leaf: Hash) {
        self.frontier.push(leaf);
        self.leaves.push(leaf);
    }

    /// That a checkpoint is one of this log, of all that was read or of its beginning: a node that is behind the
    /// others could show a history of its own there.
    fn holds(&mut self, checkpoint: &Checkpoint) -> Result<(), String> {
        if self.smaller.as_ref() == Some(checkpoint) {
            return Ok(());
        }
        let size = usize::try_from(checkpoint.size).map_err(|error| error.to_string())?;
        let all = size == self.leaves.len();
        let root = match self.leaves.get(..size) {
            Some(_) if all && size > 0 => self.frontier.root(),
            part => part.map(root_of),
        };
        if root != Some(checkpoint.root) {
            return Err(format!(
                "the log of {size} entries is not the one of which {} were shown before",
                self.leaves.len()
            ));
        }
        if !all {
            self.smaller = Some(checkpoint.clone());
        }
        Ok(())
    }
}

pub(super) struct Follower {
    notebook: Arc<Notebook>,
    verifier: Verifier,
    auditor: Auditor,
    read: Read,
    /// By node: the size of the newest checkpoint that it has shown.
    newest: Vec<u64>,
}

impl Follower {
    pub(super) fn new(
        notebook: Arc<Notebook>,
        verifier: Verifier,
        http: reqwest::Client,
        nodes: usize,
    ) -> Self {
        Self {
            notebook,
            verifier,
            auditor: Auditor {
                http,
                url: String::new(),
                credential: Some(CREDENTIAL.into()),
            },
            read: Read::default(),
            newest: vec![0; nodes],
        }
    }

    /// Until the campaign stops; then once more, for the last receipts.
    pub(super) async fn follow(mut self) -> Self {
        while !self.notebook.has_stopped() {
            if let Err(what) = self.look().await {
                self.notebook.violated(what, &[]);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        self
    }

    /// What is not answered is asked for the next time.
    async fn look(&mut self) -> Result<(), String> {
        let Some((url, sent)) = self.notebook.door(self.read.size()).await else {
            return Ok(());
        };
        self.auditor.url = url;
        self.look_at(sent.node).await
    }

    async fn look_at(&mut self, node: usize) -> Result<(), String> {
        let Some(note) = self.ask("/log/checkpoint").await? else {
            return Ok(());
        };
        let note = String::from_utf8(note).map_err(|error| error.to_string())?;
        let checkpoint = self.verifier.checkpoint(&note)?;
        let newest = self.newest[node];
        if checkpoint.size < newest {
            return Err(format!(
                "a checkpoint of {} after {newest}",
                checkpoint.size
            ));
        }
        self.newest[node] = checkpoint.size;
        let mut next = self.read.size();
        while next < checkpoint.size {
            let index = next / 256;
            let part = part(index, (checkpoint.size - index * 256).min(256));
            let Some(bytes) = self.ask(&format!("/log/tile/0/{part}")).await? else {
                return Ok(());
            };
            let known = usize::try_from(next % 256).unwrap();
            for leaf in tile(&bytes).into_iter().skip(known) {
                self.read.push(leaf);
            }
            if self.read.size() == next {
                return Err(format!("tile {part} brings nothing new"));
            }
            next = self.read.size();
        }
        self.read.holds(&checkpoint)?;
        for (index, leaf) in self.notebook.receipts_below(next) {
            match self.read.leaves[usize::try_from(index).unwrap()] == leaf {
                true => self.notebook.count(Count::Receipts),
                false => return Err(format!("another entry at {index} than the receipt says")),
            }
        }
        Ok(())
    }

    /// After everything, from a node that serves: every receipt is found.
    pub(super) async fn finish(&mut self, node: usize, url: &str) -> Result<(), String> {
        self.auditor.url = url.to_owned();
        self.look_at(node).await?;
        // What another node has written last, this one has after some seconds.
        for _ in 0..40 {
            if self.notebook.receipts_below(u64::MAX).is_empty() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
            self.look_at(node).await?;
        }
        match self.notebook.receipts_below(u64::MAX).len() {
            0 => Ok(()),
            missing => Err(format!(
                "{missing} receipts are of places beyond the {} of the log",
                self.read.size()
            )),
        }
    }

    /// `None` where nobody answers, or not now.
    async fn ask(&self, path: &str) -> Result<Option<Vec<u8>>, String> {
        let request = self.auditor.http.get(format!("{}{path}", self.auditor.url));
        let request = request.bearer_auth(CREDENTIAL);
        let Ok(answer) = request.send().await else {
            return Ok(None);
        };
        let status = answer.status().as_u16();
        let Ok(bytes) = answer.bytes().await else {
            return Ok(None);
        };
        match status {
            200 => Ok(Some(bytes.to_vec())),
            429 | 503 => Ok(None),
            _ => Err(format!(
                "{path}: {status} {}",
                String::from_utf8_lossy(&bytes)
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use tlog_tiles::record_hash;

    use super::{Frontier, Read};
    use crate::log::{Checkpoint, root_of};

    #[test]
    fn the_root_of_what_was_pushed_is_the_trees() {
        let mut frontier = Frontier::default();
        let mut leaves = Vec::new();
        for number in 0..70_u8 {
            let leaf = record_hash(&[number]);
            leaves.push(leaf);
            frontier.push(leaf);
            assert!(frontier.root() == Some(root_of(&leaves)), "{number}");
        }
    }

    /// A node that lags and shows another beginning than the others did. The honest smaller one beside it is no finding.
    #[test]
    fn a_smaller_checkpoint_is_of_the_same_log_or_a_finding() {
        let mut read = Read::default();
        for number in 0..70_u8 {
            read.push(record_hash(&[number]));
        }
        for size in [0, 1, 6, 64, 69, 70] {
            let honest = Checkpoint {
                size: size as u64,
                root: root_of(&read.leaves[..size]),
            };
            read.holds(&honest).unwrap();
            read.holds(&honest).unwrap();
            let mut forked = read.leaves[..size].to_vec();
            match forked.last_mut() {
                Some(last) => *last = record_hash(b"forged"),
                None => forked.push(record_hash(b"forged")),
            }
            let forged = Checkpoint {
                root: root_of(&forked),
                ..honest
            };
            let what = read.holds(&forged).unwrap_err();
            assert!(what.contains("is not the one"), "{what}");
            // Without a look at the root only the size is left, and it is in order.
            assert!(forged.size <= read.size());
        }
        let beyond = Checkpoint {
            size: 71,
            root: root_of(&read.leaves),
        };
        assert!(read.holds(&beyond).is_err());
    }
}
