//! What overlays build to: the documents that `kubectl apply -k` would send.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;

/// The project's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

/// The overlays that are shipped, by their regions' names.
pub(crate) fn shipped() -> Vec<String> {
    let entries = std::fs::read_dir(root().join("deploy/kubernetes/overlays")).unwrap();
    let mut names: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort_unstable();
    assert!(names.len() >= 4, "{names:?}");
    names
}

/// The text that an overlay builds to. None: there is no kubectl.
pub(crate) fn text(region: &str) -> Option<String> {
    let folder = root().join("deploy/kubernetes/overlays").join(region);
    let built = match Command::new("kubectl").arg("kustomize").arg(folder).output() {
        Ok(built) => built,
        Err(error) => {
            eprintln!("SKIPPED: kubectl does not start: {error}");
            return None;
        }
    };
    assert!(built.status.success(), "{region}: {}", String::from_utf8_lossy(&built.stderr));
    Some(String::from_utf8(built.stdout).unwrap())
}

/// Every region with its documents; nothing where there is no kubectl.
pub(crate) fn all() -> Vec<(String, Documents)> {
    shipped()
        .into_iter()
        .filter_map(|region| {
            let documents = serde_saphyr::from_multiple(&text(&region)?).unwrap();
            Some((region, Documents(documents)))
        })
        .collect()
}

/// The documents of an overlay.
pub(crate) struct Documents(pub(crate) Vec<Value>);

impl Documents {
    pub(crate) fn of_kind(&self, kind: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |document| document["kind"] == kind)
    }

    pub(crate) fn named(&self, kind: &str, name: &str) -> Option<&Value> {
        self.of_kind(kind).find(|document| document["metadata"]["name"] == name)
    }

    /// Every pod that would be made: who makes it, and the pod's template.
    pub(crate) fn pods(&self) -> Vec<(String, &Value)> {
        let made = self.0.iter().filter_map(|document| {
            let template = match document["kind"].as_str()? {
                "Deployment" | "StatefulSet" | "DaemonSet" | "Job" => &document["spec"]["template"],
                "CronJob" => &document["spec"]["jobTemplate"]["spec"]["template"],
                _ => return None,
            };
            Some((name(document), template))
        });
        made.collect()
    }

    /// The processes of the mesh among them.
    pub(crate) fn processes(&self) -> Vec<(String, &Value)> {
        let ours = ["Deployment edge", "StatefulSet node", "StatefulSet vault"];
        self.pods().into_iter().filter(|(name, _)| ours.contains(&name.as_str())).collect()
    }
}

/// `Kind name`.
pub(crate) fn name(document: &Value) -> String {
    format!("{} {}", document["kind"].as_str().unwrap(), document["metadata"]["name"].as_str().unwrap())
}

pub(crate) fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// Whether a selector takes what has these labels. An empty one takes everything.
pub(crate) fn selects(selector: &Value, labels: &Value) -> bool {
    assert!(selector["matchExpressions"].is_null(), "this test does not know {selector}");
    selector["matchLabels"].as_object().is_none_or(|wanted| wanted.iter().all(|(key, value)| labels[key] == *value))
}
