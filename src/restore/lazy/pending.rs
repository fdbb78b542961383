//! The pages that a process still misses, as it knows them now, and where they stand in the images.
//! Pure.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::criu::images::PageRun;

/// Ranges of addresses that are missing; they do not overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending(BTreeMap<u64, Piece>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Piece {
    end: u64,
    /// Where the first byte stands in the images.
    offset: u64,
}

/// Adjoining pages that are missing and stand side by side in an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Missing {
    /// Their addresses.
    pub addresses: Range<u64>,
    /// Where the first of them stands.
    pub offset: u64,
}

impl Pending {
    /// What may come later of these runs, whose images stand at these places.
    pub(crate) fn of(runs: &[PageRun], places: &[u64]) -> Pending {
        let mut pending = Pending::default();
        for run in runs.iter().filter(|run| run.lazy) {
            let place = places.get(run.image).copied().unwrap_or_default();
            pending.insert(&run.addresses, place + run.offset);
        }
        pending
    }

    /// Whether nothing is missing.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What is missing.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.0.iter().map(|(start, piece)| *start..piece.end)
    }

    /// How many bytes are missing.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|(start, piece)| piece.end - start).sum()
    }

    /// The range around an address that is missing and stands in one block of the image; none if
    /// the address is not missing.
    pub(crate) fn around(&self, address: u64, block: u64) -> Option<Missing> {
        let (&start, &piece) = self.0.range(..=address).next_back()?;
        if address >= piece.end {
            return None;
        }
        let at = piece.offset + (address - start);
        let in_block = at / block * block..(at / block + 1) * block;
        let from = in_block.start.max(piece.offset);
        let to = in_block.end.min(piece.offset + (piece.end - start));
        let addresses = start + (from - piece.offset)..start + (to - piece.offset);
        Some(Missing { addresses, offset: from })
    }

    /// The first address from this one on that is missing; after the last, the first of all.
    pub(crate) fn next_from(&self, address: u64) -> Option<u64> {
        if self.around(address, u64::MAX / 2).is_some() {
            return Some(address);
        }
        self.0.range(address..).next().or_else(|| self.0.first_key_value()).map(|(start, _)| *start)
    }

    /// These are there, or not wanted any more.
    pub(crate) fn remove(&mut self, range: &Range<u64>) {
        self.take(range);
    }

    /// The process has moved memory: what is missing is missing there now.
    pub(crate) fn remap(&mut self, from: u64, to: u64, length: u64) {
        let moved = self.take(&(from..from.saturating_add(length)));
        self.take(&(to..to.saturating_add(length)));
        for (start, piece) in moved {
            let there = start - from + to;
            self.insert(&(there..there + (piece.end - start)), piece.offset);
        }
    }

    fn insert(&mut self, addresses: &Range<u64>, offset: u64) {
        if addresses.start < addresses.end {
            self.take(addresses);
            self.0.insert(addresses.start, Piece { end: addresses.end, offset });
        }
    }

    /// Cuts a range out, and gives what was missing of it.
    fn take(&mut self, range: &Range<u64>) -> Vec<(u64, Piece)> {
        self.split(range.start);
        self.split(range.end);
        if range.start >= range.end {
            return Vec::new();
        }
        let inside: Vec<u64> = self.0.range(range.clone()).map(|(start, _)| *start).collect();
        inside.into_iter().filter_map(|start| self.0.remove_entry(&start)).collect()
    }

    /// Makes two of a piece that lies on both sides of an address.
    fn split(&mut self, at: u64) {
        let Some((&start, piece)) = self.0.range_mut(..at).next_back() else { return };
        if at < piece.end {
            let after = Piece { end: piece.end, offset: piece.offset + (at - start) };
            piece.end = at;
            self.0.insert(at, after);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: u64 = 4096;
    const PAGES: u64 = 64;

    /// Page by page: the place in the image, of those that are missing.
    type Model = BTreeMap<u64, u64>;

    #[derive(Clone, Debug)]
    enum Step {
        Remove(u64, u64),
        Remap(u64, u64, u64),
        Give(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let page = 0..PAGES;
        let length = 1..16u64;
        let step = prop_oneof![
            (page.clone(), length.clone()).prop_map(|(start, length)| Step::Remove(start, length)),
            (page.clone(), page.clone(), length)
                .prop_map(|(from, to, length)| Step::Remap(from, to, length)),
            page.prop_map(Step::Give),
        ];
        proptest::collection::vec(step, 0..40)
    }

    fn runs() -> impl Strategy<Value = Vec<PageRun>> {
        proptest::collection::vec((1..8u64, 0..4u64, any::<bool>()), 0..10).prop_map(|parts| {
            let (mut at, mut offset) = (0, 0);
            let mut runs = Vec::new();
            for (pages, hole, lazy) in parts {
                runs.push(PageRun {
                    addresses: at * PAGE..(at + pages) * PAGE,
                    image: 0,
                    offset: offset * PAGE,
                    lazy,
                });
                at += pages + hole;
                offset += pages;
            }
            runs
        })
    }

    fn apply(model: &mut Model, pending: &mut Pending, step: &Step) {
        match *step {
            Step::Remove(start, length) => {
                model.retain(|page, _| !(start..start + length).contains(page));
                pending.remove(&(start * PAGE..(start + length) * PAGE));
            }
            // The kernel moves nothing onto itself.
            Step::Remap(from, to, length) if from.abs_diff(to) >= length => {
                let moved: Vec<_> = (from..from + length)
                    .filter_map(|p| Some((p - from + to, model.remove(&p)?)))
                    .collect();
                model.retain(|page, _| !(to..to + length).contains(page));
                model.extend(moved);
                pending.remap(from * PAGE, to * PAGE, length * PAGE);
            }
            Step::Remap(..) => {}
            Step::Give(page) => match pending.around(page * PAGE, 4 * PAGE) {
                None => assert!(!model.contains_key(&page)),
                Some(missing) => {
                    assert!(missing.addresses.contains(&(page * PAGE)));
                    for at in missing.addresses.clone().step_by(PAGE as usize) {
                        let offset = missing.offset + (at - missing.addresses.start);
                        assert_eq!(model.remove(&(at / PAGE)), Some(offset / PAGE));
                        assert_eq!(offset / (4 * PAGE), missing.offset / (4 * PAGE), "one block");
                    }
                    pending.remove(&missing.addresses);
                }
            },
        }
    }

    proptest! {
        #[test]
        fn it_knows_each_page_through_all_that_a_process_does(runs in runs(), steps in steps()) {
            let mut pending = Pending::of(&runs, &[0]);
            let mut model = Model::new();
            for run in runs.iter().filter(|run| run.lazy) {
                let pages = run.addresses.start / PAGE..run.addresses.end / PAGE;
                model.extend(pages.enumerate().map(|(i, page)| (page, run.offset / PAGE + i as u64)));
            }
            for step in &steps {
                apply(&mut model, &mut pending, step);
                prop_assert_eq!(pending.bytes(), model.len() as u64 * PAGE);
                for page in 0..2 * PAGES {
                    let found = pending.around(page * PAGE, PAGE).map(|missing| missing.offset / PAGE);
                    prop_assert_eq!(found, model.get(&page).copied());
                }
                let next = pending.next_from(20 * PAGE).map(|at| at / PAGE);
                let expected = model.range(20..).next().or_else(|| model.first_key_value());
                prop_assert_eq!(next, expected.map(|(page, _)| *page));
            }
            // In the end, in the background's order, all comes.
            while let Some(at) = pending.next_from(7 * PAGE) {
                apply(&mut model, &mut pending, &Step::Give(at / PAGE));
            }
            prop_assert!(model.is_empty() && pending.is_empty());
        }
    }
}
