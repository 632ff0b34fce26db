//! A value that one client changes and reads, when some of its changes may have been carried out and some may be yet.

use super::history::Sent;

#[derive(Clone, Debug)]
pub(super) struct Register<V> {
    /// One of these it is, unless one of `late` has come meanwhile.
    now: Vec<V>,
    /// Changes without an answer that are not over.
    late: Vec<(Sent, V)>,
}

impl<V: Clone + PartialEq> Register<V> {
    pub(super) fn of(value: V) -> Self {
        Self {
            now: vec![value],
            late: Vec::new(),
        }
    }

    /// Changes that are over by then have been carried out, or never will be.
    pub(super) fn settle(&mut self, by: &Sent) {
        let over = self.late.extract_if(.., |(sent, _)| sent.is_over(by));
        self.now.extend(over.map(|(_, value)| value));
    }

    pub(super) fn possible(&self) -> impl Iterator<Item = &V> {
        self.now.iter().chain(self.late.iter().map(|(_, v)| v))
    }

    pub(super) fn wrote(&mut self, value: V) {
        self.now = vec![value];
    }

    pub(super) fn may_write(&mut self, sent: Sent, value: V) {
        self.late.push((sent, value));
    }

    /// It was seen to be `value`; whether it can be.
    #[must_use]
    pub(super) fn is(&mut self, value: &V) -> bool {
        let can_be = self.can_be(value);
        self.late.retain(|(_, late)| late != value);
        self.now = vec![value.clone()];
        can_be
    }

    /// It was seen not to be `value`; whether that leaves anything.
    #[must_use]
    pub(super) fn is_not(&mut self, value: &V) -> bool {
        self.now.retain(|now| now != value);
        if self.now.is_empty() {
            let others = self.late.iter().filter(|(_, late)| late != value);
            self.now = others.map(|(_, late)| late.clone()).collect();
        }
        !self.now.is_empty()
    }

    /// It was seen to be among those that `fit`, of which a late one is none that it was before; whether it can be.
    #[must_use]
    pub(super) fn is_among(&mut self, fit: impl Fn(&V) -> bool) -> bool {
        self.now.retain(|now| fit(now));
        if self.now.is_empty() {
            let fitting = self.late.iter().filter(|(_, late)| fit(late));
            self.now = fitting.map(|(_, late)| late.clone()).collect();
            // It has come. Of several it is not known which, and the others may come yet.
            if let [came] = &self.now[..] {
                self.late.retain(|(_, late)| late != came);
            }
        }
        !self.now.is_empty()
    }

    /// It was seen to be one of those that `fit`; whether it can be.
    #[must_use]
    pub(super) fn is_one(&mut self, fit: impl Fn(&V) -> bool) -> bool {
        self.now = self
            .possible()
            .filter(|value| fit(value))
            .cloned()
            .collect();
        self.late.retain(|(_, value)| !fit(value));
        !self.now.is_empty()
    }

    /// One of those without an answer was seen to be carried out just then; whether there is any that can be.
    #[must_use]
    pub(super) fn came_late(&mut self) -> bool {
        if !self.may_change() {
            return false;
        }
        self.now = self.late.iter().map(|(_, late)| late.clone()).collect();
        // Of several it is not known which, and the others may come yet.
        if let [_] = &self.late[..] {
            self.late.clear();
        }
        true
    }

    /// Whether there are changes without an answer that are not over.
    #[must_use]
    pub(super) fn may_change(&self) -> bool {
        !self.late.is_empty()
    }

    /// Whether it is `value` for certain.
    #[must_use]
    pub(super) fn has_to_be(&self, value: &V) -> bool {
        self.possible().all(|possible| possible == value)
    }

    #[must_use]
    pub(super) fn can_be(&self, value: &V) -> bool {
        self.possible().any(|possible| possible == value)
    }

    /// Changes that cannot happen any more, for a reason of their own.
    pub(super) fn forget(&mut self, cannot: impl Fn(&V) -> bool) {
        self.late.retain(|(_, value)| !cannot(value));
    }
}
