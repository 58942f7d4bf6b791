//! The `service_name` label: which label names the service, where none says so.

use crate::model::{Labels, LabelsBuilder};

const SERVICE_NAME: &str = "service_name";
const UNKNOWN: &str = "unknown_service";

/// Where a service's name is looked for, in order.
const DEFAULT: [&str; 13] = [
    "service",
    "app",
    "application",
    "app_name",
    "name",
    "app_kubernetes_io_name",
    "container",
    "container_name",
    "k8s_container_name",
    "component",
    "workload",
    "job",
    "k8s_job_name",
];

/// The labels to look at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    names: Vec<String>,
}

/// The default list.
impl Default for Discovery {
    fn default() -> Self {
        Self {
            names: DEFAULT.map(str::to_owned).to_vec(),
        }
    }
}

impl Discovery {
    /// `None` for an empty list: nothing is discovered.
    pub fn of(names: Vec<String>) -> Option<Self> {
        (!names.is_empty()).then_some(Self { names })
    }

    /// Whether this is the default list, which replay knows too.
    pub fn is_default(&self) -> bool {
        self.names == DEFAULT
    }

    /// `labels` with `service_name`, unless they have it. An empty set stays empty: it is
    /// refused, and must not become valid by this.
    pub fn complete(&self, labels: &Labels) -> Option<Labels> {
        if labels.is_empty() || labels.get(SERVICE_NAME).is_some() {
            return None;
        }
        let name = self
            .names
            .iter()
            .find_map(|name| labels.get(name))
            .unwrap_or(UNKNOWN);
        let mut with = LabelsBuilder::from_labels(labels);
        with.set(SERVICE_NAME, name);
        Some(with.build())
    }
}
