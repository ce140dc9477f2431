//! What may go wrong, and the dice that say when.

/// A source of numbers that looks random and follows from its seed (SplitMix64, by Steele, Lea and Flood, 2014). Not for
/// secrets.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `bound`; 0 when the bound is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The bias of the remainder is of no matter to tests.
        self.any().checked_rem(bound).unwrap_or(0)
    }

    /// Whether something that happens in `per_mille` of a thousand cases happens now.
    pub fn happens(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// One of them; `None` when there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        let index = self.below(from.len() as u64);
        from.get(usize::try_from(index).unwrap_or(0))
    }
}

/// What an operation on the storage may end in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No room left: nothing is written.
    Full,
    /// The engine fails before anything is written.
    Refused,
    /// Written and durable, and reported as failed.
    Ambiguous,
    /// Written and not synced, and reported as failed: nobody sees it, and after a crash it is there or not.
    Unsynced,
    /// The machine stops before anything is written.
    PowerCutBefore,
    /// The machine stops once it is durable, and before anybody hears of it.
    PowerCutAfter,
}

/// What can be made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// Adding a segment to the journal.
    Append,
    /// Bringing the tables up to date, or making them from a checkpoint.
    Project,
    /// Making or fetching a checkpoint: each chunk, the beginning and the end.
    Checkpoint,
    /// Having the journal begin later.
    Prune,
    /// Any read, of the journal or of the tables. A read knows no difference between faults but the power cut.
    Read,
}

/// How often operations fail by themselves, of a thousand. Which fault it is, is as likely for one as for another.
#[derive(Debug, Clone)]
pub struct Faults {
    /// Where the dice begin.
    pub seed: u64,
    /// Appends.
    pub appends_per_mille: u32,
    /// Projections.
    pub projections_per_mille: u32,
    /// Reads.
    pub reads_per_mille: u32,
    /// Appends during which the machine stops.
    pub power_cuts_per_mille: u32,
}

impl Faults {
    /// Nothing fails.
    pub fn none() -> Self {
        Self { seed: 0, appends_per_mille: 0, projections_per_mille: 0, reads_per_mille: 0, power_cuts_per_mille: 0 }
    }
}

impl super::Disk {
    /// What befalls the operation that begins now.
    pub(super) fn fault(&mut self, operation: Operation) -> Option<Fault> {
        if let Some(index) = self.scripted.iter().position(|scripted| scripted.operation == operation) {
            let scripted = &mut self.scripted[index];
            if scripted.passes > 0 {
                scripted.passes -= 1;
                return None;
            }
            return self.scripted.remove(index).map(|scripted| scripted.fault);
        }
        let Faults { appends_per_mille, projections_per_mille, reads_per_mille, power_cuts_per_mille, .. } = self.faults;
        let (per_mille, kinds): (u32, &[Fault]) = match operation {
            Operation::Append => {
                if power_cuts_per_mille > 0 && self.dice.happens(power_cuts_per_mille) {
                    return self.dice.pick(&[Fault::PowerCutBefore, Fault::PowerCutAfter]).copied();
                }
                (appends_per_mille, &[Fault::Full, Fault::Refused, Fault::Ambiguous, Fault::Unsynced])
            }
            Operation::Project => (projections_per_mille, &[Fault::Full, Fault::Refused, Fault::Ambiguous]),
            // Only where a test asks for it by name.
            Operation::Checkpoint | Operation::Prune => (0, &[]),
            Operation::Read => (reads_per_mille, &[Fault::Refused]),
        };
        if per_mille > 0 && self.dice.happens(per_mille) { self.dice.pick(kinds).copied() } else { None }
    }
}
