//! What share of short searches is left to threads, and what that brings: the rule of `llmcache_core::load` in a model of a
//! server, whose clients come in patterns.
//!
//! The model has the main thread, which reads what clients sent, runs their commands until one waits and goes on with those
//! whose searches are done; threads, which take searches from one queue; and cores, which all share. A command that waits
//! holds up those that its client sent after it. Times are those of a look-up in 100,000 entries.

use llmcache_core::load::{Load, threads_of_use};
use std::collections::VecDeque;

const US: u64 = 1_000;
/// What the model's clock advances by.
const STEP: u64 = US;
/// How long a server is watched, and how long before that counts as the start.
const WATCHED: u64 = 200_000 * US;
const START: u64 = 60_000 * US;
/// Shares of a core where it is shared, of the main thread and of a thread, which is nicer.
const MAIN_WEIGHT: u64 = 1_024;
const THREAD_WEIGHT: u64 = 335;

/// What a command costs.
#[derive(Clone, Copy)]
struct Costs {
    /// To read, open and reply.
    own: u64,
    search: u64,
    /// To hand over and to go on, beside that.
    handing_over: u64,
}

const LOOK_UP: Costs = Costs { own: 20 * US, search: 80 * US, handing_over: 12 * US };

/// Who asks, and how.
#[derive(Clone, Copy)]
struct Pattern {
    clients: usize,
    /// Commands that each sends at once.
    depth: usize,
    /// Whether a client sends when all have their replies, or when it has its own.
    together: bool,
    /// From the last reply to the next question.
    thinks: u64,
    /// Whether the server says that it sleeps before it goes on with clients that waited, as Redis 7.0 does.
    says_early: bool,
}

const PIPELINED: Pattern =
    Pattern { clients: 8, depth: 8, together: true, thinks: 30 * US, says_early: true };

#[derive(Default)]
struct Client {
    /// Commands sent and not read, read and not run, without a reply.
    sent: usize,
    read: usize,
    open: usize,
    is_waiting: bool,
    /// When it sends next.
    sends_at: Option<u64>,
    asked_at: u64,
}

/// What came of it.
#[derive(Debug, Default, Clone, Copy)]
struct Outcome {
    commands: u64,
    handed_over: u64,
    /// Sum of the times from question to last reply, and of them.
    waited: u64,
    batches: u64,
}

impl Outcome {
    fn share(self) -> f64 {
        self.handed_over as f64 / self.commands as f64
    }

    fn latency_us(self) -> f64 {
        (self.waited / self.batches / US) as f64
    }
}

struct Model {
    load: Load,
    costs: Costs,
    pattern: Pattern,
    cores: u64,
    now: u64,
    clients: Vec<Client>,
    /// What each thread searches, for whom, and how much of it is left.
    threads: Vec<Option<(usize, u64)>>,
    queue: VecDeque<usize>,
    done: VecDeque<usize>,
    outcome: Outcome,
}

impl Model {
    fn new(costs: Costs, pattern: Pattern, cores: u64, threads: usize) -> Self {
        let mut clients: Vec<_> = (0..pattern.clients).map(|_| Client::default()).collect();
        clients.iter_mut().for_each(|client| client.sends_at = Some(0));
        let (load, threads) = (Load::default(), vec![None; threads]);
        let (queue, done) = Default::default();
        let outcome = Outcome::default();
        Self { load, costs, pattern, cores, now: US, clients, threads, queue, done, outcome }
    }

    /// One step of the clock; how much of it the main thread had, if it had something to do.
    fn step(&mut self, main_is_busy: bool) -> u64 {
        for thread in self.threads.iter_mut().filter(|thread| thread.is_none()) {
            *thread = self.queue.pop_front().map(|client| (client, self.costs.search));
        }
        let searching = self.threads.iter().flatten().count() as u64;
        let weights = searching * THREAD_WEIGHT + u64::from(main_is_busy) * MAIN_WEIGHT;
        let is_room = searching + u64::from(main_is_busy) <= self.cores;
        // No thread has more than one core, and what the main thread leaves of its own is the others'.
        let main_has =
            if is_room { STEP } else { (STEP * self.cores * MAIN_WEIGHT / weights).min(STEP) };
        let left = STEP * self.cores - if main_is_busy { main_has } else { 0 };
        let each = left.checked_div(searching).map_or(0, |each| each.min(STEP));
        for thread in &mut self.threads {
            if let Some((client, rest)) = thread {
                *rest = rest.saturating_sub(each);
                if *rest == 0 {
                    self.done.push_back(*client);
                    *thread = None;
                }
            }
        }
        self.now += STEP;
        main_has
    }

    /// The main thread works so long.
    fn work(&mut self, ns: u64) {
        let mut left = ns;
        while left > 0 {
            left = left.saturating_sub(self.step(true));
        }
    }

    fn out(&self) -> usize {
        self.queue.len() + self.threads.iter().flatten().count()
    }

    fn reply(&mut self, client: usize) {
        self.clients[client].open -= 1;
        self.outcome.commands += u64::from(self.now > START);
    }

    /// Runs what a client sent, until it waits.
    fn run(&mut self, client: usize) {
        while self.clients[client].read > 0 && !self.clients[client].is_waiting {
            self.clients[client].read -= 1;
            let began = self.now;
            self.load.searches(client as u64 + 1, began);
            let threads = threads_of_use(self.threads.len(), self.cores as usize);
            if self.load.hands_over(client as u64 + 1, began, threads, self.out()) {
                self.work(self.costs.own / 2 + self.costs.handing_over / 2);
                self.queue.push_back(client);
                self.clients[client].is_waiting = true;
                self.outcome.handed_over += u64::from(self.now > START);
            } else {
                self.work(self.costs.own + self.costs.search);
                self.reply(client);
            }
            self.load.spent(began, self.now);
        }
    }

    /// One turn of the event loop, and the sleep before the next.
    fn turn(&mut self) {
        self.load.wakes(self.now);
        for client in 0..self.clients.len() {
            let sent = std::mem::take(&mut self.clients[client].sent);
            self.clients[client].read += sent;
            self.run(client);
        }
        let mut woken = Vec::new();
        while let Some(client) = self.done.pop_front() {
            let began = self.now;
            self.work(self.costs.own / 2 + self.costs.handing_over / 2);
            self.load.spent(began, self.now);
            self.reply(client);
            self.clients[client].is_waiting = false;
            woken.push(client);
        }
        if self.pattern.says_early {
            self.load.sleeps(self.now);
        }
        woken.into_iter().for_each(|client| self.run(client));
        if !self.pattern.says_early {
            self.load.sleeps(self.now);
        }
        self.send();
        while self.done.is_empty() && self.clients.iter().all(|client| client.sent == 0) {
            self.step(false);
            self.send();
        }
    }

    /// Clients who have all their replies ask again.
    fn send(&mut self) {
        let now = self.now;
        for client in &mut self.clients {
            if client.open == 0 && client.sends_at.is_none() {
                client.sends_at = Some(now + self.pattern.thinks);
                self.outcome.batches += u64::from(now > START);
                self.outcome.waited += if now > START { now - client.asked_at } else { 0 };
            }
        }
        let is_due = |client: &Client| client.sends_at.is_some_and(|at| at <= now);
        let may_send = !self.pattern.together || self.clients.iter().all(is_due);
        for client in &mut self.clients {
            if may_send && is_due(client) {
                client.sends_at = None;
                client.sent = self.pattern.depth;
                client.open = self.pattern.depth;
                client.asked_at = now;
            }
        }
    }
}

fn outcome(costs: Costs, pattern: Pattern, cores: u64, threads: usize) -> Outcome {
    let mut model = Model::new(costs, pattern, cores, threads);
    while model.now < START + WATCHED {
        model.turn();
    }
    model.outcome
}

/// Pipelines of many, whose searches threads and the main thread can share.
const SHARED: [(&str, Pattern); 5] = [
    ("together", PIPELINED),
    ("each at its own pace", Pattern { together: false, ..PIPELINED }),
    ("a server that says late that it sleeps", Pattern { says_early: false, ..PIPELINED }),
    ("one command at a time", Pattern { depth: 1, together: false, ..PIPELINED }),
    ("64 clients", Pattern { clients: 64, depth: 1, together: false, ..PIPELINED }),
];

/// How many times as many commands are answered as without threads.
fn ratio(pattern: Pattern, cores: u64, threads: usize) -> f64 {
    let [one, other] = [0, threads].map(|threads| outcome(LOOK_UP, pattern, cores, threads));
    other.commands as f64 / one.commands as f64
}

#[test]
fn two_cores_answer_many_clients_1_6_times_as_fast() {
    for (name, pattern) in SHARED {
        for threads in [1, 2] {
            let share = outcome(LOOK_UP, pattern, 2, threads).share();
            assert!((0.5..0.8).contains(&share), "{name}, {threads} threads: {share}");
            let ratio = ratio(pattern, 2, threads);
            assert!(ratio > 1.6, "{name}, {threads} threads: {ratio}");
        }
    }
}

/// All are handed over then, and what the main thread keeps bounds the rest: a look-up takes 100 us without threads, and 32
/// of the main thread with them.
#[test]
fn more_cores_bring_what_the_main_thread_has_room_for() {
    for (name, pattern) in SHARED {
        let four = ratio(pattern, 4, 4);
        assert!(four > 2.4, "{name}: {four}");
    }
    let most = 100.0 / 32.0;
    let pattern = Pattern { clients: 64, depth: 1, together: false, ..PIPELINED };
    let sixteen = ratio(pattern, 16, 16);
    assert!(sixteen > 0.95 * most && sixteen < 1.05 * most, "{sixteen}");
}

#[test]
fn few_clients_get_no_slower() {
    for (depth, clients, least) in [(1, 1, 1.0), (8, 1, 1.0), (1, 2, 1.3), (8, 2, 1.3)] {
        let ratio = ratio(Pattern { clients, depth, ..PIPELINED }, 2, 2);
        assert!(ratio >= least, "{clients} clients, {depth} at once: {ratio}");
    }
}

#[test]
fn one_client_is_answered_as_soon_as_without_threads() {
    for depth in [1, 8] {
        for cores in [1, 2, 16] {
            let pattern = Pattern { clients: 1, depth, ..PIPELINED };
            let [one, other] = [0, 2].map(|threads| outcome(LOOK_UP, pattern, cores, threads));
            assert_eq!(other.handed_over, 0);
            assert_eq!(other.latency_us(), one.latency_us(), "{depth} at once, {cores} cores");
        }
    }
}

#[test]
fn a_server_that_sleeps_most_of_the_time_hands_nothing_over() {
    for (clients, thinks) in [(1, 400), (8, 5_000), (64, 50_000)] {
        let pattern =
            Pattern { clients, depth: 1, thinks: thinks * US, together: false, ..PIPELINED };
        let share = outcome(LOOK_UP, pattern, 2, 2).share();
        assert!(share < 0.02, "{clients} clients every {thinks} us: {share}");
    }
}

#[test]
fn one_core_searches_on_the_main_thread() {
    for (name, pattern) in SHARED {
        for threads in [1, 2, 16] {
            let found = outcome(LOOK_UP, pattern, 1, threads);
            assert_eq!(found.handed_over, 0, "{name}, {threads} threads");
        }
    }
}
