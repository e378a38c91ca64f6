//! What controllers are built from.

use crate::informers::Informers;
use crate::options::Options;
use client::Client;
use client::events::EventRecorder;
use std::sync::Arc;

/// Where the controllers' service accounts live.
const NAMESPACE: &str = "kube-system";

#[derive(Clone)]
pub struct Context {
    /// In our own name: reads everything, writes little.
    pub client: Client,
    /// Without a name, for the controllers' own.
    anonymous: Option<Client>,
    pub informers: Arc<Informers>,
    pub options: Arc<Options>,
}

impl Context {
    /// With an `anonymous` client each controller acts as its own service account.
    pub fn new(client: Client, anonymous: Option<Client>, options: Options) -> Self {
        let informers = Arc::new(Informers::new(&client));
        Context {
            client,
            anonymous,
            informers,
            options: Arc::new(options),
        }
    }

    /// The client for a controller's writes; `account` is upstream's name for its service account, which its role is bound to.
    pub fn client_for(&self, account: &str) -> Client {
        match &self.anonymous {
            Some(anonymous) => anonymous.as_service_account(&self.client, NAMESPACE, account),
            None => self.client.clone(),
        }
    }

    pub fn recorder(&self, component: &str) -> EventRecorder {
        EventRecorder::new(self.client.clone(), component, "")
    }

    #[cfg(test)]
    pub fn for_tests(server: &client::fake::FakeServer) -> Self {
        Self::new(server.client(), None, Options::for_tests())
    }
}
