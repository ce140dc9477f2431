//! Kubernetes' own schemas.

use std::{env, path::Path, process::Command};

use crate::built;

/// The folder of the Python package kubernetes-validate: `cargo xtask test` fetches it.
const FOLDER: &str = "PAYMESH_KUBERNETES_VALIDATE";

/// Kinds that are others', of which Kubernetes has no schema.
const OTHERS: [&str; 3] = ["Certificate", "ServiceMonitor", "TargetGroupBinding"];

#[test]
fn every_overlay_passes_the_schemas_of_kubernetes() {
    let Some(folder) = env::var_os(FOLDER).filter(|folder| !folder.is_empty()) else {
        eprintln!("SKIPPED: {FOLDER} does not say where kubernetes-validate is");
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    let validate = |text: &str| {
        let file = directory.path().join("built.yaml");
        std::fs::write(&file, text).unwrap();
        validate(Path::new(&folder), &file)
    };
    for region in built::shipped() {
        let Some(text) = built::text(&region) else { return };
        let (passed, said) = validate(&text);
        assert!(passed, "{region}: {said}");
        let unknown: Vec<&str> = said.lines().filter(|line| line.contains("find schema")).collect();
        for line in &unknown {
            assert!(OTHERS.iter().any(|kind| line.contains(&format!("kind {kind} "))), "{region}: {line}");
        }
        eprintln!("{region}: {} documents have no schema: {}", unknown.len(), OTHERS.join(", "));
        // Strict: a key that is not there is found.
        let misspelt = text.replacen("readOnlyRootFilesystem", "readOnlyRootFileSystem", 1);
        assert!(misspelt != text && !validate(&misspelt).0, "{region}: a misspelt key passes");
    }
}

fn validate(folder: &Path, file: &Path) -> (bool, String) {
    let run = Command::new("python3").args(["-m", "kubernetes_validate", "--strict"]).arg(file).env("PYTHONPATH", folder).output().unwrap();
    (run.status.success(), format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr)))
}
