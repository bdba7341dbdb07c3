//! One pool of threads for the process, and the team that runs a forward pass together.
//!
//! Work is single-program: [`Pool::run`] calls one closure on every thread, each as a [`Member`] that knows its rank.
//! Members wait for one another only inside operations of this crate, at a barrier that checks that all of them are
//! in the same operation. Workers spin briefly for new work and then sleep, so an idle pool costs nothing.

use crate::Buffer;
use std::any::Any;
use std::cell::Cell;
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Turns of spinning before a waiting thread yields, and of yielding before a worker sleeps.
const SPINS: usize = if cfg!(miri) { 20 } else { 20_000 };
const YIELDS: usize = 64;

thread_local! {
    /// See [`waited`].
    static WAITED: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long this thread has waited for other members of a team so far, at barriers. Who comes last does not wait, and
/// so does not look at the clock.
pub fn waited() -> Duration {
    WAITED.get()
}

/// The memory that members of a team share: keys and values by layer parity, and rows gathered for pooling.
#[derive(Debug, Default)]
pub struct TeamMemory {
    pub(crate) exchange: [Buffer; 2],
    pub(crate) gathered: Buffer,
    /// What each member is doing, by barrier parity: `[parity][rank]`.
    claims: [Vec<AtomicU64>; 2],
}

impl TeamMemory {
    /// Makes room for `exchange` floats of keys and values in each of two buffers, and `gathered` floats of rows.
    pub fn ensure(&mut self, exchange: usize, gathered: usize) {
        self.exchange.iter_mut().for_each(|buffer| buffer.ensure(exchange));
        self.gathered.ensure(gathered);
    }
}

/// What the members of one run share.
struct Team<'a> {
    size: usize,
    arrived: AtomicUsize,
    generation: AtomicUsize,
    poisoned: AtomicBool,
    claims: [&'a [AtomicU64]; 2],
    /// What the members write to the exchange of a turn, by parity: the turn and the layout.
    layouts: [Mutex<(u64, u64)>; 2],
    exchange: [*mut f32; 2],
    exchange_length: usize,
    gathered: *mut f32,
    gathered_length: usize,
}

// SAFETY: the pointers lead to a `TeamMemory` that `run` borrows exclusively until every member is done; members touch
// disjoint parts of it between barriers (see `attention` and `gather`), everything else is atomic.
unsafe impl Sync for Team<'_> {}

impl<'a> Team<'a> {
    fn new(size: usize, memory: &'a mut TeamMemory) -> Self {
        for claims in &mut memory.claims {
            claims.resize_with(size, AtomicU64::default);
        }
        let [even, odd] = &mut memory.exchange;
        let exchange_length = even.len().min(odd.len());
        let claims = [&memory.claims[0][..], &memory.claims[1][..]];
        Self {
            size,
            arrived: AtomicUsize::new(0),
            generation: AtomicUsize::new(0),
            poisoned: AtomicBool::new(false),
            claims,
            layouts: [const { Mutex::new((u64::MAX, 0)) }; 2],
            exchange: [even.as_mut_ptr(), odd.as_mut_ptr()],
            exchange_length,
            gathered: memory.gathered.as_mut_ptr(),
            gathered_length: memory.gathered.len(),
        }
    }

    fn wait(&self) {
        // A member that caught the panic of an earlier meeting must not be counted again.
        assert!(!self.poisoned.load(Ordering::Relaxed), "another member of the team panicked");
        let generation = self.generation.load(Ordering::Acquire);
        if self.arrived.fetch_add(1, Ordering::AcqRel) + 1 == self.size {
            self.arrived.store(0, Ordering::Relaxed);
            self.generation.store(generation + 1, Ordering::Release);
            return;
        }
        let started = Instant::now();
        let mut spins = 0;
        while self.generation.load(Ordering::Acquire) == generation {
            assert!(!self.poisoned.load(Ordering::Relaxed), "another member of the team panicked");
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        WAITED.set(WAITED.get() + started.elapsed());
    }
}

/// One thread's part in a run: rank 0 is the caller. There is exactly one `Member` for each rank.
pub struct Member<'a> {
    rank: usize,
    team: TeamRef<'a>,
    /// Barriers passed; its parity selects the exchange buffer.
    turn: u64,
}

/// A team of others, or of this member alone.
enum TeamRef<'a> {
    Shared(&'a Team<'a>),
    Solo(&'a mut TeamMemory),
}

impl<'a> Member<'a> {
    /// A member that works alone.
    pub fn solo(memory: &'a mut TeamMemory) -> Self {
        Self { rank: 0, team: TeamRef::Solo(memory), turn: 0 }
    }

    /// This member's number, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Members in the team.
    pub fn size(&self) -> usize {
        match &self.team {
            TeamRef::Shared(team) => team.size,
            TeamRef::Solo(_) => 1,
        }
    }

    /// This member's part of `0..total`: parts are contiguous, in rank order, begin at even numbers (see
    /// [`crate::gemm::gemm_tokens`]), and differ by two at most.
    pub fn part(&self, total: usize) -> std::ops::Range<usize> {
        let pairs = total.div_ceil(2);
        let start = |rank: usize| (2 * (pairs * rank / self.size())).min(total);
        start(self.rank)..start(self.rank + 1)
    }

    /// The exchange buffer of this turn, with its length, after making room where this member works alone.
    pub(crate) fn exchange(&mut self, length: usize) -> *mut f32 {
        match &mut self.team {
            TeamRef::Shared(team) => {
                assert!(length <= team.exchange_length, "the team's exchange holds {} floats", team.exchange_length);
                team.exchange[(self.turn % 2) as usize]
            }
            TeamRef::Solo(memory) => {
                memory.exchange[0].ensure(length);
                memory.exchange[0].as_mut_ptr()
            }
        }
    }

    /// Says how this member is about to write to the exchange of this turn. Members that lay it out differently would
    /// write to the same places.
    ///
    /// # Panics
    /// Where another member has announced another layout for this turn.
    pub(crate) fn announce(&mut self, layout: u64) {
        if let TeamRef::Shared(team) = &self.team {
            let mut announced = lock(&team.layouts[(self.turn % 2) as usize]);
            if announced.0 != self.turn {
                *announced = (self.turn, layout);
            }
            let together = announced.1 == layout;
            drop(announced);
            assert!(together, "the members of a team ran different operations");
        }
    }

    /// The buffer for gathered rows, after making room where this member works alone.
    pub(crate) fn gathered(&mut self, length: usize) -> *mut f32 {
        match &mut self.team {
            TeamRef::Shared(team) => {
                assert!(length <= team.gathered_length, "the team gathers at most {} floats", team.gathered_length);
                team.gathered
            }
            TeamRef::Solo(memory) => {
                memory.gathered.ensure(length);
                memory.gathered.as_mut_ptr()
            }
        }
    }

    /// Waits for the whole team, and checks that everyone is at the same `operation`.
    pub(crate) fn meet(&mut self, operation: u64) {
        if let TeamRef::Shared(team) = &self.team {
            let claims = &team.claims[(self.turn % 2) as usize];
            claims[self.rank].store(operation, Ordering::Relaxed);
            team.wait();
            let together = claims.iter().all(|claim| claim.load(Ordering::Relaxed) == operation);
            if !together {
                team.poisoned.store(true, Ordering::Relaxed);
            }
            assert!(together, "the members of a team ran different operations");
        }
        self.turn += 1;
    }
}

/// A slice that the threads of a run write in disjoint places.
pub(crate) struct SharedMut<'a> {
    start: *mut f32,
    length: usize,
    _borrow: PhantomData<&'a mut [f32]>,
}

// SAFETY: handing out the pointer is safe, and whoever writes through it vouches for disjoint places.
unsafe impl Sync for SharedMut<'_> {}

impl<'a> SharedMut<'a> {
    pub(crate) fn new(data: &'a mut [f32]) -> Self {
        Self { start: data.as_mut_ptr(), length: data.len(), _borrow: PhantomData }
    }

    /// The first element.
    pub(crate) fn start(&self) -> *mut f32 {
        self.start
    }

    /// Elements `range`.
    ///
    /// # Safety
    /// No other thread uses these elements while the slice lives.
    #[allow(clippy::mut_from_ref)]
    pub(crate) unsafe fn part(&self, range: std::ops::Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.length, "a part of the slice");
        // SAFETY: the elements lie in the borrowed slice, and the caller vouches that they are its own.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

type Job = *const (dyn Fn(usize) + Sync);

/// What the workers wait on.
struct Board {
    epoch: AtomicUsize,
    job: Mutex<Option<SendJob>>,
    wake: Condvar,
    left: AtomicUsize,
    stop: AtomicBool,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

#[derive(Clone, Copy)]
struct SendJob(Job);
// SAFETY: the closure behind the pointer is `Sync`, and `broadcast` keeps it alive until every worker is done.
unsafe impl Send for SendJob {}

/// A fixed set of threads, the caller among them.
pub struct Pool {
    board: Arc<Board>,
    workers: Vec<JoinHandle<()>>,
    /// Held during a run: one at a time.
    memory: Mutex<TeamMemory>,
}

/// Locks, ignoring poison: the guarded values stay consistent when a run panics.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Pool {
    /// A pool of `threads` threads (at least one, the caller's).
    pub fn new(threads: usize) -> Self {
        let board = Arc::new(Board {
            epoch: AtomicUsize::new(0),
            job: Mutex::new(None),
            wake: Condvar::new(),
            left: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
            panic: Mutex::new(None),
        });
        let workers = (1..threads.max(1))
            .map_while(|rank| {
                let board = Arc::clone(&board);
                std::thread::Builder::new().name(format!("engine-{rank}")).spawn(move || worker(rank, &board)).ok()
            })
            .collect();
        Self { board, workers, memory: Mutex::default() }
    }

    /// Threads, the caller's included.
    pub fn threads(&self) -> usize {
        self.workers.len() + 1
    }

    /// Runs `work` on every thread as members of one team that shares `exchange` and `gathered` floats of memory.
    ///
    /// # Panics
    /// Where `work` panics on any thread, once all have stopped.
    pub fn run_team(&self, exchange: usize, gathered: usize, work: &(dyn Fn(Member<'_>) + Sync)) {
        let mut memory = lock(&self.memory);
        memory.ensure(exchange, gathered);
        let team = Team::new(self.threads(), &mut memory);
        self.broadcast(&|rank| {
            let member = Member { rank, team: TeamRef::Shared(&team), turn: 0 };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(member))) {
                team.poisoned.store(true, Ordering::Relaxed);
                resume_unwind(panic);
            }
        });
    }

    /// Runs `work` on every thread, independently; the argument is the rank.
    ///
    /// # Panics
    /// Where `work` panics on any thread, once all have stopped.
    pub fn run(&self, work: &(dyn Fn(usize) + Sync)) {
        let _one_at_a_time = lock(&self.memory);
        self.broadcast(work);
    }

    fn broadcast(&self, work: &(dyn Fn(usize) + Sync)) {
        let board = &*self.board;
        if !self.workers.is_empty() {
            // SAFETY: only the lifetime is erased; the wait below outlasts every use of the pointer.
            let job: Job = unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), Job>(work) };
            board.left.store(self.workers.len(), Ordering::Relaxed);
            let mut slot = lock(&board.job);
            *slot = Some(SendJob(job));
            board.epoch.fetch_add(1, Ordering::Release);
            drop(slot);
            board.wake.notify_all();
        }
        let own = catch_unwind(AssertUnwindSafe(|| work(0)));
        let mut spins = 0;
        while board.left.load(Ordering::Acquire) > 0 {
            spins += 1;
            if spins < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
        }
        let other = lock(&board.panic).take();
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if let Some(panic) = other {
            resume_unwind(panic);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        let slot = lock(&self.board.job);
        self.board.stop.store(true, Ordering::Relaxed);
        self.board.epoch.fetch_add(1, Ordering::Release);
        drop(slot);
        self.board.wake.notify_all();
        for worker in self.workers.drain(..) {
            // A worker only ends by `stop`; its jobs' panics were caught.
            let _ = worker.join();
        }
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pool({} threads)", self.threads())
    }
}

/// Waits for the epoch to pass `seen`: spins, yields, then sleeps.
fn next_epoch(board: &Board, seen: usize) -> usize {
    for turn in 0..SPINS + YIELDS {
        let epoch = board.epoch.load(Ordering::Acquire);
        if epoch != seen {
            return epoch;
        }
        if turn < SPINS { std::hint::spin_loop() } else { std::thread::yield_now() }
    }
    let mut slot = lock(&board.job);
    while board.epoch.load(Ordering::Acquire) == seen {
        slot = board.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
    }
    board.epoch.load(Ordering::Acquire)
}

fn worker(rank: usize, board: &Board) {
    let mut epoch = 0;
    loop {
        epoch = next_epoch(board, epoch);
        if board.stop.load(Ordering::Relaxed) {
            return;
        }
        let Some(SendJob(job)) = *lock(&board.job) else { continue };
        // SAFETY: `broadcast` waits for `left` to reach zero before the closure goes away, and this thread counts
        // itself off only after the call.
        let work = unsafe { &*job };
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| work(rank))) {
            lock(&board.panic).get_or_insert(panic);
        }
        board.left.fetch_sub(1, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_runs_once_each_time() {
        let pool = Pool::new(3);
        for round in 0..if cfg!(miri) { 5 } else { 200 } {
            let counts: Vec<AtomicUsize> = (0..3).map(|_| AtomicUsize::new(0)).collect();
            pool.run(&|rank| {
                counts[rank].fetch_add(1, Ordering::Relaxed);
            });
            assert!(counts.iter().all(|c| c.load(Ordering::Relaxed) == 1), "round {round}");
        }
    }

    #[test]
    fn parts_cover_everything() {
        let pool = Pool::new(3);
        let total = AtomicUsize::new(0);
        pool.run_team(0, 0, &|mut member| {
            for turn in 0..if cfg!(miri) { 5 } else { 50 } {
                member.meet(turn);
            }
            total.fetch_add(member.part(197).len(), Ordering::Relaxed);
        });
        assert_eq!(total.into_inner(), 197);
    }

    #[test]
    fn a_panic_reaches_the_caller_and_the_pool_lives_on() {
        let pool = Pool::new(2);
        for bad in 0..2 {
            let outcome = catch_unwind(AssertUnwindSafe(|| {
                pool.run_team(0, 0, &|mut member| {
                    assert_ne!(member.rank(), bad, "planned");
                    member.meet(1);
                });
            }));
            assert!(outcome.is_err());
        }
        pool.run(&|_| {});
    }

    #[test]
    fn members_at_different_operations_are_caught() {
        let pool = Pool::new(2);
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            pool.run_team(0, 0, &|mut member| member.meet(member.rank() as u64));
        }));
        assert!(outcome.is_err());
    }
}
