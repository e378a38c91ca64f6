//! Threads that each keep their connections for life.
//!
//! The workers of one runtime wake each other for every request that arrives while they sleep. Where requests are small that costs as much
//! as the request: here all of a connection's tasks live on its thread.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use super::socket::Socket;
use crate::allocator;

/// A timer that is due before all others makes its own thread's poll return once for nothing. Deadlines of requests are further away than
/// this, so with a tick they never are.
const TICK: Duration = Duration::from_secs(1);

pub struct Threads {
    all: Vec<Thread>,
}

struct Thread {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
    /// Its end ends the thread.
    _running: oneshot::Sender<()>,
}

impl Threads {
    pub fn start(name: &str, count: usize) -> std::io::Result<Arc<Threads>> {
        let all = (0..count)
            .map(|number| Thread::start(&format!("{name}-{number}")))
            .collect::<Result<_, _>>()?;
        Ok(Arc::new(Threads { all }))
    }

    /// Hands a connection to the thread that has the fewest.
    pub(super) fn spawn<F, Fut>(&self, stream: Socket, connection: F) -> std::io::Result<()>
    where
        F: FnOnce(Socket) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send,
    {
        let fewest = |thread: &&Thread| thread.connections.load(Ordering::Relaxed);
        let Some(thread) = self.all.iter().min_by_key(fewest) else {
            return Ok(());
        };
        let stream = stream.detach()?;
        let counted = Counted::new(&thread.connections);
        thread.runtime.spawn(async move {
            let _counted = counted;
            match stream.attach() {
                Ok(stream) => connection(stream).await,
                Err(error) => tracing::error!(err = %error, "A connection could not be registered"),
            }
        });
        Ok(())
    }
}

impl Thread {
    fn start(name: &str) -> std::io::Result<Thread> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (running, mut ended) = oneshot::channel();
        let handle = runtime.handle().clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            runtime.block_on(async {
                while tokio::time::timeout(TICK, &mut ended).await.is_err() {
                    allocator::collect();
                }
            });
        })?;
        Ok(Thread {
            runtime: handle,
            connections: Arc::default(),
            _running: running,
        })
    }
}

struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn new(count: &Arc<AtomicUsize>) -> Counted {
        count.fetch_add(1, Ordering::Relaxed);
        Counted(count.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
