//! Work that a member's task waits for beside everything else, and that ends when nobody waits for it any more.
//!
//! Main path: [`Job::spawn`], [`Job::done`].

use tokio::task::JoinHandle;

#[derive(Debug)]
pub(super) struct Job<T>(JoinHandle<T>);

impl<T: Send + 'static> Job<T> {
    pub(super) fn spawn(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// Its result; to be awaited until it is there, then never again. Cancel-safe.
    pub(super) async fn done(&mut self) -> T {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            // Aborted with the runtime: so is whoever waits here.
            Err(_) => std::future::pending().await,
        }
    }
}

impl<T> Job<T> {
    pub(super) fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

impl<T> Drop for Job<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
