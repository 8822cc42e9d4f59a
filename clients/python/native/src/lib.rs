//! The sockets of llmcache's adapters for inference engines, where Python's own loop would be slower than the wire.
//!
//! A store of chunks: threads with a connection each, one for look-ups, the others for payloads, which go out of the
//! engine's memory and into it without a copy and without Python. Shares no code with the module, only its protocol.
//! `llmcache._engine` has the same in Python, for TLS and where this is not installed; the tests run over both.

mod core;
mod failure;
mod job;
mod lane;
mod load;
mod memory;
mod plan;
mod resp;
mod task;
mod wire;

use crate::core::Core;
use crate::job::{Job, Work};
use crate::lane::Lane;
use crate::memory::Memory;
use crate::task::Task;
use crate::wire::Endpoint;
use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// Counts the changes of what Python calls; `llmcache` takes no other than it knows.
const INTERFACE: u32 = 2;

/// Where the server is, and how it is spoken to.
#[derive(FromPyObject)]
struct Where {
    host: String,
    port: u16,
    path: String,
    username: String,
    password: String,
    db: u32,
    timeout: f64,
    connect_timeout: f64,
}

/// How a store works.
#[derive(FromPyObject)]
struct How {
    connections: usize,
    page_bytes: usize,
    ttl: u64,
    checksum: bool,
    pause: f64,
}

/// Stores, loads and asks in the background; each `done` is called once, on a thread of the store.
#[pyclass(frozen)]
struct Store {
    core: Arc<Core>,
    bulk: Lane,
    quick: Lane,
    page_bytes: usize,
    connections: usize,
}

fn seconds(number: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(number).map_err(|error| PyValueError::new_err(error.to_string()))
}

#[pymethods]
impl Store {
    /// `settings` are the arguments of `KVCHUNK.CREATE` behind the namespace; `warn` is told of failures, in words.
    #[new]
    fn new(
        endpoint: Where,
        options: How,
        settings: Vec<Vec<u8>>,
        warn: Py<PyAny>,
    ) -> PyResult<Self> {
        let Where { host, port, path, username, password, db, .. } = endpoint;
        let (timeout, connect_timeout) =
            (seconds(endpoint.timeout)?, seconds(endpoint.connect_timeout)?);
        let endpoint =
            Endpoint { host, port, path, username, password, db, timeout, connect_timeout };
        let core = Arc::new(Core::new(
            endpoint,
            settings,
            options.ttl,
            options.page_bytes,
            options.checksum,
            seconds(options.pause)?,
            warn,
        ));
        let lane = |name, threads| {
            Lane::new(&core, name, threads).map_err(|error| PyOSError::new_err(error.to_string()))
        };
        let (bulk, quick) = (lane("bulk", options.connections.max(1))?, lane("look-up", 1)?);
        let (page_bytes, connections) = (options.page_bytes, options.connections);
        Ok(Self { core, bulk, quick, page_bytes, connections })
    }

    /// Stores chunks of one prompt in their order; `ahead` is the chunk before the first, where it is known.
    fn put(
        &self,
        namespace: &str,
        names: Vec<Vec<u8>>,
        payloads: Vec<Bound<'_, PyAny>>,
        ahead: Option<Vec<u8>>,
        done: Py<PyAny>,
    ) -> PyResult<()> {
        let memory = Memory::of(&payloads, false)?;
        self.submit(namespace, names, memory, ahead, done, |task, range| Work::Put {
            task,
            range,
            is_making: false,
            is_remade: false,
        })
    }

    /// Loads chunks into these buffers; true for each that came whole and fills its own.
    fn load(
        &self,
        namespace: &str,
        names: Vec<Vec<u8>>,
        payloads: Vec<Bound<'_, PyAny>>,
        done: Py<PyAny>,
    ) -> PyResult<()> {
        let memory = Memory::of(&payloads, true)?;
        self.submit(namespace, names, memory, None, done, |task, range| Work::Load {
            task,
            range,
            state: Box::default(),
        })
    }

    /// Sends commands in one trip; `done` is called with their replies, or with None where one failed.
    fn ask(&self, commands: Vec<Vec<Bound<'_, PyAny>>>, done: Py<PyAny>) -> PyResult<()> {
        let (mut bytes, count) = (Vec::new(), commands.len());
        for command in commands {
            resp::begin(&mut bytes, command.len());
            for word in command {
                if let Ok(raw) = word.cast::<PyBytes>() {
                    resp::argument(&mut bytes, raw.as_bytes());
                } else if let Ok(text) = word.cast::<PyString>() {
                    resp::argument(&mut bytes, text.to_cow()?.as_bytes());
                } else {
                    resp::number(&mut bytes, word.extract()?);
                }
            }
        }
        let work = Work::Ask { bytes, count, sent: 0, done: Some(done) };
        self.quick.submit(vec![Job::new(&self.core, work)]);
        Ok(())
    }

    /// What happened.
    fn counts(&self) -> HashMap<&'static str, u64> {
        let counts = &self.core.counts;
        let told = [
            ("stored", &counts.stored),
            ("loaded", &counts.loaded),
            ("missed", &counts.missed),
            ("rejected", &counts.rejected),
            ("failed", &counts.failed),
            ("reconnects", &counts.reconnects),
        ];
        told.into_iter().map(|(name, count)| (name, count.load(Ordering::Relaxed))).collect()
    }

    /// Whether the last attempt to speak to the server went well.
    #[getter]
    fn is_up(&self) -> bool {
        self.core.is_up()
    }

    /// Ends connections and threads, when what was submitted is done.
    fn close(&self, py: Python<'_>) {
        py.detach(|| {
            for lane in [&self.quick, &self.bulk] {
                lane.end();
                lane.join();
            }
        });
    }
}

impl Store {
    fn submit(
        &self,
        namespace: &str,
        names: Vec<Vec<u8>>,
        memory: Memory,
        ahead: Option<Vec<u8>>,
        done: Py<PyAny>,
        work: impl Fn(Arc<Task>, std::ops::Range<usize>) -> Work,
    ) -> PyResult<()> {
        if names.len() != memory.payloads.len() {
            let text = format!("{} chunks and {} payloads", names.len(), memory.payloads.len());
            return Err(PyValueError::new_err(text));
        }
        let task = Task::new(namespace.as_bytes().to_vec(), names, memory, ahead, done);
        let pages = plan::pages(&task.sizes(), self.page_bytes, self.connections);
        task.begin(pages.len());
        let task = Arc::new(task);
        self.bulk.submit(
            pages
                .into_iter()
                .map(|range| Job::new(&self.core, work(task.clone(), range)))
                .collect(),
        );
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.quick.end();
        self.bulk.end();
    }
}

/// Names of slices of chunks, one behind the other, and the length of each: the hash, and behind it rank and group. The
/// length is 0 where hashes have several.
#[pyfunction]
fn pack<'py>(
    hashes: &Bound<'py, PyList>,
    ranks: &Bound<'py, PyList>,
    groups: &Bound<'py, PyList>,
) -> PyResult<(Bound<'py, PyBytes>, usize)> {
    let py = hashes.py();
    if ranks.len() != hashes.len() || groups.len() != hashes.len() {
        return Err(PyValueError::new_err("a rank and a group are needed for each hash"));
    }
    let (mut packed, mut length) = (Vec::new(), None);
    for ((hash, rank), group) in hashes.iter().zip(ranks).zip(groups) {
        let hash = hash.cast::<PyBytes>()?.as_bytes();
        if *length.get_or_insert(hash.len()) != hash.len() {
            return Ok((PyBytes::new(py, b""), 0));
        }
        packed.reserve_exact(if packed.is_empty() { (hash.len() + 12) * hashes.len() } else { 0 });
        packed.extend_from_slice(hash);
        packed.extend_from_slice(&rank.extract::<u64>()?.to_be_bytes());
        packed.extend_from_slice(&group.extract::<u32>()?.to_be_bytes());
    }
    Ok((PyBytes::new(py, &packed), length.map_or(0, |length| length + 12)))
}

/// What `llmcache._engine.native` imports.
#[pymodule]
fn llmcache_native(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("INTERFACE", INTERFACE)?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(pack, module)?)?;
    module.add_class::<Store>()
}
