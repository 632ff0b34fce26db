//! What one run of the model looks at: the mode, the nodes, the bounds and at
//! most one mutant. The scenarios build these; nothing here is ever changed
//! while a run lasts.

/// How a batch becomes fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each batch is anchored in the token before anything of it is released.
    Strict,
    /// A warm anchor per batch, the token from time to time.
    Bounded,
}

/// One rule left out or done wrong. Each must break a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutant {
    NoSecondList,
    SecondListNewestOnly,
    TrustOthersAnchor,
    DestroyEquals,
    ExclusiveCatchesUp,
    SignBeforeAnchor,
    NoAnchorAtStart,
    MissingAnchorIsZero,
    AttemptsToZero,
    EvaluateUnknown,
    EvaluateExpired,
    NeighboursReread,
    LazyAnchor,
    ReadUncovered,
    CatchUpUncovered,
    OrphansByNumber,
    CleanFlagStands,
    NoBootEpoch,
    NoDirtyFlag,
    CodesOutliveBoot,
    RestoreKeepsBudget,
    RestoreLeavesAll,
    RestoreKeepsEpoch,
}

/// How far a run goes. Every action that makes a new head, or that nature or
/// the adversary could repeat for ever, is counted against one of these; the
/// database's lies are not counted at all.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Heads ever sealed, the first included.
    pub(crate) heads: usize,
    pub(crate) guesses: u8,
    /// Guesses that may turn out right.
    pub(crate) rights: u8,
    pub(crate) crashes: u8,
    pub(crate) revoke: bool,
    pub(crate) uses: u8,
    pub(crate) consumptions: u8,
    pub(crate) expiry: bool,
    pub(crate) restores: u8,
    /// The token may lose its anchor objects once.
    pub(crate) token_loss: bool,
}

/// Nothing happens; scenarios name what differs.
pub(crate) const NOTHING: Bounds = Bounds {
    heads: 1,
    guesses: 0,
    rights: 0,
    crashes: 0,
    revoke: false,
    uses: 0,
    consumptions: 0,
    expiry: false,
    restores: 0,
    token_loss: false,
};

/// The model itself.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    pub(crate) mode: Mode,
    pub(crate) nodes: usize,
    /// The database does what it says; it may still lose an answer.
    pub(crate) honest: bool,
    pub(crate) budget: u8,
    /// Guesses of each account that the approvers of a restore leave (`guesses_left`).
    pub(crate) left: u8,
    /// Bounded mode: charges of one account that the token has not seen.
    pub(crate) unanchored: u8,
    pub(crate) bounds: Bounds,
    pub(crate) mutant: Option<Mutant>,
}

impl Ledger {
    /// Refuses what the daemon's configuration refuses.
    pub(crate) fn new(mode: Mode, nodes: usize, bounds: Bounds) -> Result<Self, &'static str> {
        if mode == Mode::Bounded && nodes > 1 {
            return Err(
                "bounded mode keeps its warm anchor on one host: configure one node, or strict mode",
            );
        }
        Ok(Self {
            mode,
            nodes,
            honest: false,
            budget: 2,
            left: 0,
            unanchored: 1,
            bounds,
            mutant: None,
        })
    }

    pub(crate) fn honest(self) -> Self {
        Self {
            honest: true,
            ..self
        }
    }

    pub(crate) fn budget(self, budget: u8) -> Self {
        Self { budget, ..self }
    }

    pub(crate) fn leaving(self, left: u8) -> Self {
        Self { left, ..self }
    }

    pub(crate) fn with(self, mutant: Mutant) -> Self {
        Self {
            mutant: Some(mutant),
            ..self
        }
    }

    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.mutant == Some(mutant)
    }

    /// One exclusive node never catches up: a head that is neither its own nor
    /// its parent is what an earlier process sent and never anchored.
    pub(crate) fn others_write(&self) -> bool {
        self.nodes > 1 || self.is(Mutant::ExclusiveCatchesUp)
    }

    pub(crate) fn bounded(&self) -> bool {
        self.mode == Mode::Bounded
    }
}
