//! Which history a stretch of a journal is of, place by place.

use std::ops::RangeInclusive;

use paymesh_journal::Segment;
use paymesh_types::{Cursor, HistoryMark, Sequence};

/// The marks of segments that follow each other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks {
    segments: Vec<(RangeInclusive<Sequence>, Option<HistoryMark>)>,
}

impl Marks {
    /// Of these segments, in their order.
    pub(crate) fn of<'a>(segments: impl IntoIterator<Item = &'a Segment>) -> Self {
        Self { segments: segments.into_iter().map(|segment| (segment.first..=segment.last(), segment.mark())).collect() }
    }

    /// A place, with the mark of the segment that holds it; `None` where it is in none of these.
    pub(crate) fn at(&self, sequence: Sequence) -> Option<Cursor> {
        let index = self.segments.partition_point(|(held, _)| *held.end() < sequence);
        let (held, mark) = self.segments.get(index)?;
        held.contains(&sequence).then_some(Cursor { sequence, mark: *mark })
    }
}
