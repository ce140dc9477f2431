//! What goes over the wire for a payment.

use std::time::Duration;

use super::{OURS, Pack, Run, THEIRS};
use crate::{load::Mode, peers::postgres::Pair, proxy::Proxy};

impl Run<'_> {
    /// Counted by a proxy between the two, with large batches and with small ones: a time of its own, because the proxy takes some
    /// of the processor.
    pub(super) async fn bytes(&mut self, mut pair: Option<&mut Pair>) -> anyhow::Result<()> {
        let (mut pack, proxy) = Pack::counted(self.lab, "wire", self.accounts).await?;
        let (accounts, time) = (self.accounts, Duration::from_millis(self.lab.common.measure_ms()));
        let mut batches = vec![self.batch, self.lag_batch];
        batches.dedup();
        for batch in batches {
            let mode = Mode::Stream { batch, in_flight: self.lab.common.batches };
            let before = proxy.bytes();
            let answered = self.lab.pay(&pack.leader[0], accounts, mode, time).await?.answered;
            pack.current().await?;
            let bytes = proxy.bytes() - before;
            self.lab.report.figure(&format!("{OURS}, {}", mode.name()), "bytes on the wire for a payment", bytes as f64 / answered as f64);
            let Some(pair) = &mut pair else { continue };
            let proxy = Proxy::start(pair.publisher.port).await?;
            pair.subscribe(false).await?;
            pair.by_way_of(proxy.port).await?;
            pair.subscribe(true).await?;
            pair.caught_up().await?;
            let before = proxy.bytes();
            let mut load = pair.load(accounts, self.lab.seed()).await?;
            let (warm, end) = self.times();
            let paid = load.pay(batch, None, warm, end).await?;
            pair.caught_up().await?;
            let bytes = (proxy.bytes() - before) as f64 / paid.payments as f64;
            self.lab.report.figure(&format!("{THEIRS}, batches of {batch}"), "bytes on the wire for a payment", bytes);
            pair.subscribe(false).await?;
            pair.by_way_of(pair.publisher.port).await?;
            pair.subscribe(true).await?;
        }
        Ok(())
    }
}
