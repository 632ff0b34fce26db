//! An auditor who follows the log while everything fails: each checkpoint continues the one before, whichever node showed that,
//! its leaves are to be had at every node, and what receipts promised stands where they said.

use std::sync::Arc;
use std::time::Duration;

use tlog_tiles::{Hash, node_hash};

use super::dice::Dice;
use super::notebook::{Count, Notebook};
use crate::log::{CREDENTIAL, Checkpoint, Verifier, part, root_of, tile};

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
    /// The size of the newest checkpoint, and whose it was.
    newest: (u64, usize),
}

impl Read {
    fn size(&self) -> u64 {
        self.leaves.len() as u64
    }

    fn push(&mut self, leaf: Hash) {
        self.frontier.push(leaf);
        self.leaves.push(leaf);
    }

    /// That a checkpoint which was asked for after the newest one was there is not behind that, whichever node has it.
    fn follows(&mut self, size: u64, node: usize) -> Result<(), String> {
        let (newest, whose) = self.newest;
        if size < newest {
            return Err(format!(
                "a checkpoint of {size} at node {node} after one of {newest} at node {whose}"
            ));
        }
        self.newest = (size, node);
        Ok(())
    }

    /// That a checkpoint is one of this log, of all that was read or of its beginning: a node that is behind the
    /// others could show a history of its own there.
    fn holds(&self, checkpoint: &Checkpoint) -> Result<(), String> {
        let size = usize::try_from(checkpoint.size).map_err(|error| error.to_string())?;
        let root = match self.leaves.get(..size) {
            Some(_) if size > 0 && size == self.leaves.len() => self.frontier.root(),
            part => part.map(root_of),
        };
        match root == Some(checkpoint.root) {
            true => Ok(()),
            false => Err(format!(
                "the log of {size} entries is not the one of which {} were shown before",
                self.leaves.len()
            )),
        }
    }
}

pub(super) struct Follower {
    notebook: Arc<Notebook>,
    verifier: Verifier,
    http: reqwest::Client,
    dice: Dice,
    read: Read,
}

/// A node and its address.
pub(super) type Node = (usize, String);

impl Follower {
    pub(super) fn new(
        notebook: Arc<Notebook>,
        verifier: Verifier,
        http: reqwest::Client,
        dice: Dice,
    ) -> Self {
        Self {
            notebook,
            verifier,
            http,
            dice,
            read: Read::default(),
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

    /// What is not answered is asked for the next time. The leaves are read where the checkpoint was, or from the next node.
    async fn look(&mut self) -> Result<(), String> {
        let chance = self.dice.roll();
        let Some((urls, sent)) = self.notebook.doors(chance, 2).await else {
            return Ok(());
        };
        let nodes = sent.to.iter().map(|visit| visit.node);
        let [first, second] = nodes.zip(urls).collect::<Vec<_>>().try_into().unwrap();
        match self.dice.below(2) {
            0 => self.look_at(&first, &first).await,
            _ => self.look_at(&first, &second).await,
        }
    }

    async fn look_at(&mut self, node: &Node, leaves_of: &Node) -> Result<(), String> {
        let Some(note) = self.ask(node, "/log/checkpoint").await? else {
            return Ok(());
        };
        let note = String::from_utf8(note).map_err(|error| error.to_string())?;
        let checkpoint = self.verifier.checkpoint(&note)?;
        if checkpoint.size < self.read.size() {
            self.read.holds(&checkpoint)?;
        }
        self.read.follows(checkpoint.size, node.0)?;
        let mut next = self.read.size();
        while next < checkpoint.size {
            let index = next / 256;
            let part = part(index, (checkpoint.size - index * 256).min(256));
            let path = format!("/log/tile/0/{part}");
            let Some(bytes) = self.ask(leaves_of, &path).await? else {
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

    /// After everything, from each node that serves: every receipt is found.
    pub(super) async fn finish(&mut self, nodes: &[Node]) -> Result<(), String> {
        // What was written last has its checkpoint some seconds later.
        for round in 0..40 {
            for (at, node) in nodes.iter().enumerate() {
                self.look_at(node, &nodes[(at + 1) % nodes.len()]).await?;
            }
            if round > 0 && self.notebook.receipts_left() == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        match self.notebook.receipts_left() {
            0 => Ok(()),
            missing => Err(format!(
                "{missing} receipts are of places beyond the {} of the log",
                self.read.size()
            )),
        }
    }

    /// `None` where nobody answers, or not now.
    async fn ask(&self, (node, url): &Node, path: &str) -> Result<Option<Vec<u8>>, String> {
        let request = self.http.get(format!("{url}{path}"));
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
                "{path} at node {node}: {status} {}",
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

    /// Control: by node, each of these follows the one before.
    #[test]
    fn a_checkpoint_of_another_node_that_is_behind_is_found() {
        let mut read = Read::default();
        let shown = [(60, 0), (60, 1), (70, 1), (70, 2), (75, 0)];
        for (size, node) in shown {
            read.follows(size, node).unwrap();
        }
        let what = read.follows(74, 2).unwrap_err();
        assert!(
            what.contains("74 at node 2 after one of 75 at node 0"),
            "{what}"
        );
        let of_its_own = shown.iter().filter(|(_, node)| *node == 2);
        assert!(
            of_its_own.clone().count() > 0 && of_its_own.into_iter().all(|(size, _)| *size <= 74)
        );
        read.follows(75, 2).unwrap();
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
