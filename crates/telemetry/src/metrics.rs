//! The recorder behind the `metrics` macros, in Prometheus' text form.
//!
//! Histograms get their buckets by the unit at the end of their name: `_seconds`, `_entries` or `_bytes`.
//! A histogram without such an ending would become a summary, whose quantiles cannot be added up across nodes.

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};

use crate::{Error, lines};

/// From a commit on an idle machine to the default deadline.
const SECONDS_BUCKETS: [f64; 17] =
    [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Up to the largest batch.
const ENTRIES_BUCKETS: [f64; 10] = [1.0, 2.0, 8.0, 32.0, 128.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0];

/// From a small message to the largest.
const BYTES_BUCKETS: [f64; 9] = [64.0, 256.0, 1024.0, 4096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// What has been counted in this process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
}

impl Metrics {
    /// Makes this process record what the `metrics` macros count, every series labelled with `region`.
    ///
    /// # Errors
    /// [`Error::AlreadySetUp`] the second time.
    pub fn install(region: &str) -> Result<Self, Error> {
        let (recorder, metrics) = Self::recorder(region)?;
        ::metrics::set_global_recorder(recorder).map_err(|_| Error::AlreadySetUp { what: "metrics" })?;
        ::metrics::describe_counter!(lines::DROPPED, "Lines of the log that were dropped because nobody read it");
        Ok(metrics)
    }

    /// A recorder of its own and what it has counted, for tests and for several nodes in one process.
    ///
    /// # Errors
    /// [`Error::Metrics`] if the buckets are refused.
    pub fn recorder(region: &str) -> Result<(PrometheusRecorder, Self), Error> {
        let recorder = PrometheusBuilder::new()
            .add_global_label("region", region)
            .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_entries".to_owned()), &ENTRIES_BUCKETS)?
            .set_buckets_for_metric(Matcher::Suffix("_bytes".to_owned()), &BYTES_BUCKETS)?
            .build_recorder();
        let handle = recorder.handle();
        Ok((recorder, Self { handle }))
    }

    /// Everything counted so far, in Prometheus' text form.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Moves what histograms hold into their buckets. To be called every few seconds, or memory grows between scrapes;
    /// [`serve_http`](crate::serve_http) does.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_have_buckets_by_their_unit_and_series_their_region() {
        let (recorder, metrics) = Metrics::recorder("eu_west").expect("a recorder");
        ::metrics::with_local_recorder(&recorder, || {
            ::metrics::describe_counter!("paymesh_test_total", "What the test counts");
            ::metrics::counter!("paymesh_test_total").increment(1);
            ::metrics::histogram!("paymesh_test_seconds").record(0.002);
        });
        let text = metrics.render();
        assert!(text.contains("# HELP paymesh_test_total What the test counts"), "{text}");
        assert!(text.contains("paymesh_test_total{region=\"eu_west\"} 1"), "{text}");
        assert!(text.contains("paymesh_test_seconds_bucket{region=\"eu_west\",le=\"0.0025\"} 1"), "{text}");
    }
}
