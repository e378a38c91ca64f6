//! What controllers are built from.

use crate::informers::Informers;
use crate::options::Options;
use client::Client;
use client::events::EventRecorder;
use std::sync::Arc;

#[derive(Clone)]
pub struct Context {
    pub client: Client,
    pub informers: Arc<Informers>,
    pub options: Arc<Options>,
}

impl Context {
    pub fn new(client: Client, options: Options) -> Self {
        let informers = Arc::new(Informers::new(&client));
        Context { client, informers, options: Arc::new(options) }
    }

    /// The client of one controller: where its own service account's token would be put in.
    pub fn client_for(&self, _controller: &str) -> Client {
        self.client.clone()
    }

    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "")
    }

    #[cfg(test)]
    pub fn for_tests(server: &client::fake::FakeServer) -> Self {
        Self::new(server.client(), Options::for_tests())
    }
}
