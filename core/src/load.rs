//! Whether a short search is left to another thread, by how much there is to do.
//!
//! Owns: who searched lately, and what share of its time the main thread is awake and spends on searches. Times are
//! passed in, in nanoseconds of one clock. Main thread only.
//!
//! To hand a search over costs the main thread about as much as a fifth of the search, and its client a few
//! microseconds more. So it pays where something else is to be done meanwhile: the main thread is awake most of the
//! time, other clients want searches or it is busy with other commands, and a thread has room. Whatever finds no room
//! is searched on the main thread, which so takes a thread's share where it has nothing better to do.

/// Searches that wait or run in each thread: one runs, and one is there when that ends.
const PER_THREAD: usize = 2;
/// A client that searched within this time is going to search again.
const RECENT_NS: u64 = 5_000_000;
/// Clients that are told apart: more than this do not matter.
const CLIENTS: usize = 32;
/// How long shares of time are measured before half of it is forgotten: what held up the thread once is no load.
const WINDOW_NS: u64 = 20_000_000;

/// Of so many threads on so many cores, those that short searches are left to: on one core there is nobody to do them
/// while the main thread does something else.
pub fn threads_of_use(threads: usize, cores: usize) -> usize {
    if cores < 2 { 0 } else { threads.min(cores) }
}

/// What the main thread has to do.
#[derive(Debug, Default)]
pub struct Load {
    /// Clients that searched, and when.
    clients: [(u64, u64); CLIENTS],
    /// When the main thread awoke, while it is awake.
    awake_since: Option<u64>,
    awake_ns: u64,
    asleep_since: Option<u64>,
    asleep_ns: u64,
    /// What commands that search took of the time awake.
    searching_ns: u64,
}

impl Load {
    /// The main thread goes to sleep until something happens.
    pub fn sleeps(&mut self, now: u64) {
        if let Some(since) = self.awake_since.take() {
            self.awake_ns += now.saturating_sub(since);
        }
        self.asleep_since = Some(now);
    }

    /// It has something to do.
    pub fn wakes(&mut self, now: u64) {
        if let Some(since) = self.asleep_since.take() {
            self.asleep_ns += now.saturating_sub(since);
        }
        self.awake_since = Some(now);
        if self.awake_ns + self.asleep_ns > WINDOW_NS {
            self.awake_ns /= 2;
            self.asleep_ns /= 2;
            self.searching_ns /= 2;
        }
    }

    /// A command of a client searches.
    pub fn searches(&mut self, client: u64, now: u64) {
        let oldest = |clients: &[(u64, u64); CLIENTS]| {
            let places = clients.iter().enumerate();
            places.min_by_key(|(_, (_, at))| *at).map_or(0, |(place, _)| place)
        };
        let known = self.clients.iter().position(|(other, _)| *other == client);
        let place = known.unwrap_or_else(|| oldest(&self.clients));
        self.clients[place] = (client, now);
    }

    /// Such a command took the main thread from `began` to `now`. Servers run commands after they said that they go to
    /// sleep, of clients that have waited: in that time the main thread is awake.
    pub fn spent(&mut self, began: u64, now: u64) {
        let took = now.saturating_sub(began);
        self.searching_ns += took;
        if let Some(since) = self.asleep_since {
            self.asleep_ns += began.saturating_sub(since);
            self.awake_ns += took;
            self.asleep_since = Some(now);
        }
    }

    /// Whether a short search of a client is left to one of the threads, in which so many are `out`.
    pub fn hands_over(&self, client: u64, now: u64, threads: usize, out: usize) -> bool {
        if out >= threads * PER_THREAD {
            return false;
        }
        let awake = self.awake_ns + self.awake_since.map_or(0, |since| now.saturating_sub(since));
        let all = awake + self.asleep_ns;
        if awake < all / 2 || all == 0 {
            return false;
        }
        // One is for the main thread itself, unless that has more than searches to do.
        let has_more = all > WINDOW_NS / 2 && awake.saturating_sub(self.searching_ns) > all / 2;
        let is_recent = |at: u64| at != 0 && now.saturating_sub(at) < RECENT_NS;
        let others = |&&(other, at): &&(u64, u64)| other != client && is_recent(at);
        out < self.clients.iter().filter(others).count() + usize::from(has_more)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const TURNS: usize = 400;

    /// A main thread at `now` that was awake for a share of the last 40 ms, all of it for searches, of these clients.
    fn load(awake_percent: u64, clients: &[u64]) -> (Load, u64) {
        let (mut load, mut now) = (Load::default(), MS);
        for _ in 0..TURNS {
            load.wakes(now);
            for client in clients {
                load.searches(*client, now);
            }
            now += awake_percent * 1_000;
            load.spent(now - awake_percent * 1_000, now);
            load.sleeps(now);
            now += (100 - awake_percent) * 1_000;
        }
        load.wakes(now);
        (load, now)
    }

    #[test]
    fn one_client_keeps_its_searches_however_busy_it_is() {
        let (load, now) = load(100, &[7]);
        assert!(!load.hands_over(7, now, 2, 0));
    }

    #[test]
    fn of_several_clients_one_is_for_the_main_thread() {
        let (load, now) = load(90, &[7, 8, 9]);
        assert!(load.hands_over(7, now, 2, 0));
        assert!(load.hands_over(7, now, 2, 1));
        assert!(!load.hands_over(7, now, 2, 2));
    }

    #[test]
    fn threads_have_no_more_room_than_keeps_them_busy() {
        let clients: Vec<u64> = (1..20).collect();
        let (load, now) = load(90, &clients);
        assert!(load.hands_over(1, now, 2, 3));
        assert!(!load.hands_over(1, now, 2, 4));
        assert!(load.hands_over(1, now, 4, 7));
        assert!(!load.hands_over(1, now, 0, 0));
    }

    #[test]
    fn a_main_thread_that_sleeps_most_of_the_time_searches_itself() {
        let (load, now) = load(30, &[7, 8, 9]);
        assert!(!load.hands_over(7, now, 2, 0));
    }

    #[test]
    fn a_long_turn_counts_before_it_ends() {
        let (mut load, now) = load(30, &[7, 8, 9]);
        load.clients.iter_mut().for_each(|(_, at)| *at = now + 20 * MS);
        assert!(load.hands_over(7, now + 20 * MS, 2, 0));
    }

    #[test]
    fn clients_that_left_are_forgotten() {
        let (mut load, now) = load(100, &[7, 8, 9]);
        let later = now + RECENT_NS;
        load.searches(7, later);
        load.spent(now, later);
        assert!(!load.hands_over(7, later, 2, 0));
    }

    #[test]
    fn other_commands_are_a_load_as_well() {
        let (mut load, mut now) = (Load::default(), MS);
        for _ in 0..TURNS {
            load.wakes(now);
            load.searches(7, now);
            load.spent(now, now + 20_000);
            now += 90_000;
            load.sleeps(now);
            now += 10_000;
        }
        load.wakes(now);
        assert!(load.hands_over(7, now, 2, 0));
        assert!(!load.hands_over(7, now, 2, 1));
    }

    #[test]
    fn commands_that_run_after_the_server_said_that_it_sleeps_count_as_awake() {
        let (mut load, mut now) = (Load::default(), MS);
        for _ in 0..TURNS {
            load.wakes(now);
            now += 10_000;
            load.sleeps(now);
            for client in [7, 8, 9] {
                load.searches(client, now);
                load.spent(now, now + 25_000);
                now += 25_000;
            }
            now += 15_000;
        }
        assert!(load.hands_over(7, now, 2, 0));
    }

    #[test]
    fn a_single_pause_is_no_load() {
        let (mut load, now) = load(30, &[7]);
        load.sleeps(now + 5 * MS);
        load.wakes(now + 5 * MS);
        assert!(!load.hands_over(7, now + 5 * MS, 2, 0));
    }

    #[test]
    fn of_many_clients_those_are_kept_who_searched_last() {
        let (mut load, now) = load(100, &[]);
        for client in 1..=1_000 {
            load.searches(client, now + client);
        }
        let known = load.clients.iter().map(|(client, _)| *client);
        assert_eq!(known.min(), Some(1_000 - CLIENTS as u64 + 1));
    }
}
