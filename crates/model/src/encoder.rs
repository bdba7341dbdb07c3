//! Runs a tower over many items: whole items to threads, a lone item split by tokens among all of them.
//!
//! Results do not depend on which of the two happened, nor on the items computed together.

use crate::profile::Profile;
use crate::tower::{ImageTower, TextTower, Until};
use openvision_kernels::pool::{Member, Pool, TeamMemory};
use openvision_kernels::vector::Rows;
use openvision_kernels::{Buffer, attention::AttentionShape};
use openvision_tensor::{
    Arena, CpuExec, CpuInput, CpuStore, Exec, LinearId, ParamPlan, Slot, Tap, Timed, Times, Weights,
};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Rows that one pass over the weights should have at least: fewer would be bound by reading the weights.
const ROWS_PER_PASS: usize = 96;

/// Texts of one pass where each costs only the tokens that it has: some ten each.
const SHORT_TEXTS_PER_PASS: usize = 8;

/// What became of filling an item's input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// The input is there.
    Ready,
    /// This item has no input (a broken file, say); the others go on.
    Skip,
    /// Take no further items.
    Stop,
}

/// Where the input of one item goes. Only the fields of the tower's kind have a length.
pub struct Item<'a> {
    /// Planar pixels, [3, height, width].
    pub pixels: &'a mut [f32],
    /// Token ids, `[context]`.
    pub ids: &'a mut [u32],
    /// The position that pooling takes, where it depends on the text.
    pub mark: &'a mut usize,
}

/// Sees taps: item, tap, token range, rows. Called on every thread.
pub type Observe<'a> = &'a (dyn Fn(usize, Tap, Range<usize>, Rows) + Sync);

/// One forward pass over many items.
#[derive(Clone, Copy)]
pub struct Pass<'a> {
    /// Number of items.
    pub count: usize,
    /// How far to go.
    pub until: Until,
    /// Fills an item's input; called once for each item, on one of the threads that encode it.
    pub fill: &'a (dyn Fn(usize, Item) -> Fill + Sync),
    /// Takes an item's raw embedding; called on every thread, in no particular order.
    pub sink: &'a (dyn Fn(usize, &[f32]) + Sync),
    /// Sees intermediate values.
    pub observe: Option<Observe<'a>>,
}

/// Sizes of a tower's inputs and shared memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EncoderShape {
    pub(crate) tokens: usize,
    pub(crate) width: usize,
    /// Values of a picture; 0 for texts.
    pub(crate) pixels: usize,
    /// Ids of a text; 0 for pictures.
    pub(crate) ids: usize,
    pub(crate) attention: AttentionShape,
}

pub(crate) enum Tower {
    Image(ImageTower),
    Text(TextTower),
}

impl Tower {
    fn forward(&self, ex: &mut dyn Exec, until: Until) -> Option<Slot> {
        match self {
            Tower::Image(tower) => tower.forward(ex, until),
            Tower::Text(tower) => tower.forward(ex, until),
        }
    }
}

/// A loaded tower with the working memory of every thread.
pub struct Encoder {
    tower: Tower,
    store: CpuStore,
    shape: EncoderShape,
    workers: Vec<Mutex<Worker>>,
    /// Input of the item that a whole team works on.
    shared: Mutex<Inputs>,
}

/// Inputs of a few items.
#[derive(Default)]
struct Inputs {
    pixels: Buffer,
    ids: Vec<u32>,
    marks: Vec<usize>,
    /// Which item each sequence is.
    items: Vec<usize>,
}

#[derive(Default)]
struct Worker {
    arena: Arena,
    memory: TeamMemory,
    inputs: Inputs,
}

/// Locks, ignoring poison: a panicked pass leaves only working memory behind, which the next one overwrites.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Inputs {
    /// Fills up to `range.len()` items one after the other; skipped ones leave no gap.
    fn fill(&mut self, shape: EncoderShape, range: Range<usize>, pass: &Pass, stop: &AtomicBool) {
        let most = range.len();
        self.pixels.ensure(most * shape.pixels);
        self.ids.resize((most * shape.ids).max(self.ids.len()), 0);
        self.marks.resize(most.max(self.marks.len()), 0);
        self.items.clear();
        for index in range {
            let at = self.items.len();
            let item = Item {
                pixels: &mut self.pixels[at * shape.pixels..(at + 1) * shape.pixels],
                ids: &mut self.ids[at * shape.ids..(at + 1) * shape.ids],
                mark: &mut self.marks[at],
            };
            match (pass.fill)(index, item) {
                Fill::Ready => self.items.push(index),
                Fill::Skip => {}
                Fill::Stop => {
                    stop.store(true, Ordering::Relaxed);
                    return;
                }
            }
        }
    }

    fn view(&self, shape: EncoderShape) -> CpuInput<'_> {
        let count = self.items.len();
        CpuInput {
            sequences: count,
            pixels: &self.pixels[..count * shape.pixels],
            ids: &self.ids[..count * shape.ids],
            marks: &self.marks[..count],
        }
    }
}

impl Encoder {
    pub(crate) fn new(tower: Tower, store: CpuStore, shape: EncoderShape, threads: usize) -> Self {
        let workers = (0..threads).map(|_| Mutex::default()).collect();
        Self { tower, store, shape, workers, shared: Mutex::default() }
    }

    /// Bytes of the packed weights.
    pub fn weight_bytes(&self) -> usize {
        self.store.bytes()
    }

    /// The weights whose products are computed in 32 bits, by name.
    pub fn float_maps(&self) -> Vec<&str> {
        let plan = self.plan();
        let is_float = |i: &usize| matches!(self.store.linear(LinearId(*i)), Weights::Float(_));
        (0..plan.linears.len()).filter(is_float).map(|i| plan.linears[i].weight.as_str()).collect()
    }

    /// The parameters of the tower.
    pub(crate) fn plan(&self) -> &ParamPlan {
        match &self.tower {
            Tower::Image(tower) => &tower.plan,
            Tower::Text(tower) => &tower.plan,
        }
    }

    /// Sizes of the tower's attention.
    pub(crate) fn attention(&self) -> AttentionShape {
        self.shape.attention
    }

    /// Runs a pass on a pool of as many threads as the encoder was made for.
    pub fn run(&self, pool: &Pool, pass: &Pass) {
        self.run_with(pool, pass, None);
    }

    /// The same with a clock: adds the time of every operation, on all threads, to the profile.
    pub fn run_timed(&self, pool: &Pool, pass: &Pass, profile: &Profile) {
        self.run_with(pool, pass, Some(profile));
    }

    fn run_with(&self, pool: &Pool, pass: &Pass, profile: Option<&Profile>) {
        let threads = pool.threads();
        assert!(threads <= self.workers.len(), "the encoder was made for {} threads", self.workers.len());
        let group = match &self.tower {
            Tower::Text(tower) if tower.ends_with_the_text() => SHORT_TEXTS_PER_PASS,
            _ => ROWS_PER_PASS.div_ceil(self.shape.tokens),
        };
        // What does not fill all threads equally is split by tokens instead, so that none of them waits.
        let left_over = match (threads, group) {
            (1, _) => 0,
            _ if self.merges() => 0,
            (_, 1) => pass.count % threads,
            _ if pass.count < threads => pass.count,
            _ => 0,
        };
        let whole = pass.count - left_over;
        let (stop, prepared) = (AtomicBool::new(false), AtomicBool::new(false));
        if whole > 0 {
            let group = group.min(whole.div_ceil(threads));
            let next = AtomicUsize::new(0);
            pool.run(&|rank| {
                let worker = &mut *lock(&self.workers[rank]);
                while !stop.load(Ordering::Relaxed) {
                    let start = next.fetch_add(group, Ordering::Relaxed);
                    if start >= whole {
                        // Groups are of one where something is left over: this is the first thread without work.
                        if start == whole && left_over > 0 {
                            lock(&self.shared).fill(self.shape, whole..whole + 1, pass, &stop);
                            prepared.store(true, Ordering::Relaxed);
                        }
                        return;
                    }
                    worker.inputs.fill(self.shape, start..(start + group).min(whole), pass, &stop);
                    let Worker { arena, memory, inputs } = worker;
                    self.forward(Member::solo(memory), arena, inputs, pass, profile);
                }
            });
        }
        for index in whole..pass.count {
            let shared = &mut *lock(&self.shared);
            if !stop.load(Ordering::Relaxed) {
                if index > whole || !prepared.load(Ordering::Relaxed) {
                    shared.fill(self.shape, index..index + 1, pass, &stop);
                }
                self.run_team(pool, shared, pass, profile);
            }
        }
    }

    /// Whether an item's tokens are merged, which one thread does for all of them.
    fn merges(&self) -> bool {
        matches!(&self.tower, Tower::Image(tower) if tower.merges())
    }

    fn run_team(&self, pool: &Pool, inputs: &Inputs, pass: &Pass, profile: Option<&Profile>) {
        if inputs.items.is_empty() {
            return;
        }
        let gathered = self.shape.tokens * self.shape.width;
        pool.run_team(self.shape.attention.exchange_length(), gathered, &|member| {
            let worker = &mut *lock(&self.workers[member.rank()]);
            self.forward(member, &mut worker.arena, inputs, pass, profile);
        });
    }

    fn forward(&self, member: Member, arena: &mut Arena, inputs: &Inputs, pass: &Pass, profile: Option<&Profile>) {
        if inputs.items.is_empty() {
            return;
        }
        let observe = |tap: Tap, sequence: usize, tokens: Range<usize>, rows: Rows| {
            if let Some(observe) = pass.observe {
                observe(inputs.items[sequence], tap, tokens, rows);
            }
        };
        let taps: Option<openvision_tensor::TapSink> = if pass.observe.is_some() { Some(&observe) } else { None };
        let mut ex = CpuExec::new(&self.store, member, arena, inputs.view(self.shape), taps);
        let embedded = match profile {
            None => self.tower.forward(&mut ex, pass.until),
            Some(profile) => {
                let times = Times::default();
                let embedded = self.tower.forward(&mut Timed::new(&mut ex, &times), pass.until);
                profile.add(times);
                embedded
            }
        };
        if let Some(slot) = embedded {
            let rows = ex.read(slot);
            for sequence in 0..rows.count {
                (pass.sink)(inputs.items[sequence], rows.row(sequence));
            }
        }
    }
}
