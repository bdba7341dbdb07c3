//! Which words come next: candidates of one picture's hypotheses, and when it is done.

use super::{Generated, Strategy};
use crate::random::Stream;
use openvision_kernels::vector::Rows;
use std::cmp::Ordering;

/// A caption in the making.
#[derive(Clone, Debug)]
pub(super) struct Hypothesis {
    /// Where its keys and values are.
    pub(super) slot: usize,
    /// Its words.
    pub(super) ids: Vec<u32>,
    /// Σ log p.
    pub(super) score: f64,
}

/// A word that may follow.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate {
    /// Index of the hypothesis that it follows.
    pub(super) parent: usize,
    /// The word.
    pub(super) id: u32,
    /// Σ log p with it.
    pub(super) score: f64,
}

/// The hypotheses of one picture.
#[derive(Debug)]
pub(super) struct Group {
    /// Going on; none when done.
    pub(super) running: Vec<Hypothesis>,
    /// Ended captions with their worth, best first.
    ended: Vec<(Generated, f64)>,
    first_slot: usize,
}

impl Group {
    /// One hypothesis without words.
    pub(super) fn new(first_slot: usize) -> Self {
        let start = Hypothesis { slot: first_slot, ids: Vec::new(), score: 0.0 };
        Self { running: vec![start], ended: Vec::new(), first_slot }
    }

    /// The words to choose from, best first: one for greedy and sampled choice, twice the width for beams (so that
    /// enough are left when some end).
    pub(super) fn candidates(&self, logits: Rows, strategy: &Strategy, stream: Option<&mut Stream>) -> Vec<Candidate> {
        let most = match strategy {
            Strategy::Beam { width, .. } => 2 * width,
            _ => 1,
        };
        let mut all = Vec::new();
        let mut stream = stream;
        for (parent, hypothesis) in self.running.iter().enumerate() {
            let row = logits.row(parent);
            let normalizer = log_sum_exp(row, 1.0);
            let mut add = |id: usize| {
                let score = hypothesis.score + f64::from(row[id]) - normalizer;
                all.push(Candidate { parent, id: id as u32, score });
            };
            match (strategy, stream.as_deref_mut()) {
                (Strategy::Sample { temperature, top_k, top_p, .. }, Some(stream)) => {
                    add(sample(row, (*temperature, *top_k, *top_p), stream.unit()));
                }
                _ => best(row, most).into_iter().for_each(add),
            }
        }
        // Stable: of equal scores the earlier hypothesis and the smaller id come first.
        all.sort_by(|a, b| b.score.total_cmp(&a.score));
        all.truncate(most);
        all
    }

    /// Takes a candidate that ends its caption; `length` counts its ids with the end.
    pub(super) fn end(&mut self, candidate: &Candidate, length: usize, strategy: &Strategy) {
        let ids = self.running[candidate.parent].ids.clone();
        let ended = Generated { ids, log_probability: candidate.score, ended: true };
        self.keep(ended, worth(candidate.score, length, strategy), strategy.width());
    }

    fn keep(&mut self, generated: Generated, worth: f64, most: usize) {
        let at = self.ended.partition_point(|(_, other)| *other >= worth);
        self.ended.insert(at, (generated, worth));
        self.ended.truncate(most);
    }

    /// Whether nothing that still runs can become better than the captions that ended.
    pub(super) fn is_done(&self, next: &[(usize, Candidate)], length: usize, strategy: &Strategy) -> bool {
        let width = strategy.width();
        match (self.ended.get(width - 1), next.first()) {
            (_, None) => true,
            (Some((_, worst)), Some((_, best))) => *worst >= worth(best.score, length, strategy),
            (None, _) => false,
        }
    }

    /// Slots for the next hypotheses: the first child of a parent inherits its slot, others get a copy of it in a slot
    /// whose hypothesis ends here.
    pub(super) fn assign_slots(
        &self,
        next: &[(usize, Candidate)],
        width: usize,
        copies: &mut Vec<(usize, usize)>,
    ) -> Vec<usize> {
        let kept: Vec<usize> = next.iter().map(|(parent, _)| self.running[*parent].slot).collect();
        let mut free = (self.first_slot..self.first_slot + width).filter(|slot| !kept.contains(slot));
        let mut slots: Vec<usize> = Vec::with_capacity(next.len());
        for from in &kept {
            if !slots.contains(from) {
                slots.push(*from);
                continue;
            }
            let to = free.next().expect("there are as many slots as hypotheses");
            copies.push((*from, to));
            slots.push(to);
        }
        slots
    }

    /// The best caption: of those that ended and, at the limit, of those still running.
    pub(super) fn finish(mut self, strategy: &Strategy) -> Generated {
        for hypothesis in std::mem::take(&mut self.running) {
            let worth = worth(hypothesis.score, hypothesis.ids.len(), strategy);
            let cut = Generated { ids: hypothesis.ids, log_probability: hypothesis.score, ended: false };
            self.keep(cut, worth, strategy.width());
        }
        let empty = Generated { ids: Vec::new(), log_probability: 0.0, ended: false };
        self.ended.into_iter().next().map_or(empty, |(generated, _)| generated)
    }
}

fn worth(score: f64, length: usize, strategy: &Strategy) -> f64 {
    match strategy {
        Strategy::Beam { length_penalty, .. } => score / (length.max(1) as f64).powf(*length_penalty),
        _ => score,
    }
}

/// log Σ e^(x / temperature), in f64.
fn log_sum_exp(row: &[f32], temperature: f64) -> f64 {
    let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scaled = |x: f32| (f64::from(x) - f64::from(largest)) / temperature;
    row.iter().map(|x| scaled(*x).exp()).sum::<f64>().ln() + f64::from(largest) / temperature
}

/// Larger first; of equals the smaller index.
fn by_score(row: &[f32], a: usize, b: usize) -> Ordering {
    row[b].total_cmp(&row[a]).then(a.cmp(&b))
}

/// The indices of the `most` largest values, in order.
fn best(row: &[f32], most: usize) -> Vec<usize> {
    let mut kept: Vec<usize> = Vec::with_capacity(most + 1);
    for (i, value) in row.iter().enumerate() {
        if kept.len() == most && kept.last().is_some_and(|&last| row[last] >= *value) {
            continue;
        }
        let at = kept.partition_point(|&other| by_score(row, other, i) == Ordering::Less);
        kept.insert(at, i);
        kept.truncate(most);
    }
    kept
}

/// The word at `point` (0 to 1) of the cumulated probabilities of the words allowed, most probable first.
fn sample(row: &[f32], (temperature, top_k, top_p): (f64, usize, f64), point: f64) -> usize {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_unstable_by(|&a, &b| by_score(row, a, b));
    if top_k > 0 {
        order.truncate(top_k);
    }
    let largest = f64::from(row[order[0]]);
    let weight = |i: usize| ((f64::from(row[i]) - largest) / temperature).exp();
    let total: f64 = order.iter().map(|&i| weight(i)).sum();
    if top_p < 1.0 {
        let mut reached = 0.0;
        let enough = order.iter().position(|&i| {
            reached += weight(i) / total;
            reached >= top_p
        });
        order.truncate(enough.map_or(order.len(), |last| last + 1));
    }
    let mut left = point * order.iter().map(|&i| weight(i)).sum::<f64>();
    for &i in &order {
        left -= weight(i);
        if left < 0.0 {
            return i;
        }
    }
    order[order.len() - 1]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_come_in_order_and_ties_by_index() {
        assert_eq!(best(&[1.0, 3.0, 2.0, 3.0, 0.5], 3), [1, 3, 2]);
        assert_eq!(best(&[1.0], 3), [0]);
    }

    #[test]
    fn sampling_keeps_to_the_allowed_words() {
        let row = [0.0f32, 2.0, 1.0, -1.0];
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        let first = 2.0f64.exp() / total;
        assert_eq!(sample(&row, (1.0, 0, 1.0), first - 1e-9), 1);
        assert_eq!(sample(&row, (1.0, 0, 1.0), first + 1e-9), 2);
        assert_eq!(sample(&row, (1.0, 0, 1.0), 1.0 - 1e-9), 3);
        assert_eq!(sample(&row, (1.0, 2, 1.0), 1.0 - 1e-9), 2);
        assert_eq!(sample(&row, (1.0, 0, 0.5), 1.0 - 1e-9), 1);
        assert_eq!(sample(&row, (0.01, 0, 1.0), 0.999), 1);
    }

    #[test]
    fn children_of_one_parent_get_slots_of_their_own() {
        let one = |slot| Hypothesis { slot, ids: vec![], score: 0.0 };
        let group = Group { running: vec![one(4), one(5), one(6)], ended: vec![], first_slot: 4 };
        let child = |parent| (parent, Candidate { parent, id: 0, score: 0.0 });
        let mut copies = Vec::new();
        assert_eq!(group.assign_slots(&[child(1), child(1), child(2)], 3, &mut copies), [5, 4, 6]);
        assert_eq!(copies, [(5, 4)]);
    }

    #[test]
    fn log_sum_exp_holds_for_large_values() {
        assert!((log_sum_exp(&[1000.0, 1000.0], 1.0) - 1000.0 - 2.0f64.ln()).abs() < 1e-9);
    }
}
