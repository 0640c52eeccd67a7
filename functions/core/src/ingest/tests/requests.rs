//! What one batch costs in requests, by kind. Requests are most of what a bucket costs.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;

use ribera_storage::object::{ObjectMeta, Part, PutBody, PutOutcome};
use ribera_storage::ports::Host;

use super::*;

/// Requests of one event with one batch on an idle table. See finding F: it was 40.
const REQUESTS_MAX: u64 = 26;

/// Counts requests by kind.
struct Counting {
    inner: MemoryStore,
    counts: RefCell<BTreeMap<&'static str, u64>>,
}

impl Counting {
    fn count(&self, kind: &'static str) {
        *self.counts.borrow_mut().entry(kind).or_default() += 1;
    }
}

impl ObjectStore for Counting {
    async fn get(&self, path: &ObjectPath) -> ribera_storage::Result<Option<Bytes>> {
        self.count("get");
        self.inner.get(path).await
    }

    async fn get_range(&self, path: &ObjectPath, range: Range<u64>) -> ribera_storage::Result<Option<Part>> {
        self.count("get");
        self.inner.get_range(path, range).await
    }

    async fn put(&self, path: &ObjectPath, body: PutBody) -> ribera_storage::Result<()> {
        self.count("put");
        self.inner.put(path, body).await
    }

    async fn put_if_absent(&self, path: &ObjectPath, body: PutBody) -> ribera_storage::Result<PutOutcome> {
        self.count("put");
        self.inner.put_if_absent(path, body).await
    }

    async fn list(
        &self,
        prefix: &str,
        start_after: Option<&str>,
        limit: usize,
    ) -> ribera_storage::Result<Vec<ObjectMeta>> {
        self.count("list");
        self.inner.list(prefix, start_after, limit).await
    }

    async fn head(&self, path: &ObjectPath) -> ribera_storage::Result<Option<ObjectMeta>> {
        self.count("head");
        self.inner.head(path).await
    }

    async fn delete(&self, path: &ObjectPath) -> ribera_storage::Result<()> {
        self.count("delete");
        self.inner.delete(path).await
    }
}

#[test]
fn one_batch_on_an_idle_table_costs_at_most_26_requests() {
    block_on(async {
        let TestHost { objects: inner, clock, random } = world().await;
        let host = Host::new(Counting { inner, counts: RefCell::default() }, clock, random);
        let (mut most, mut all) = (0, BTreeMap::<&str, u64>::new());
        const BATCHES: u64 = 24;
        for sequence in 1..=BATCHES {
            let day = date(2026, 1, 1 + i8::try_from(sequence % 28).unwrap());
            let sent = Sent::new(&format!("s1/ventas/000000-{sequence:010}"), &[day], 3);
            sent.put(&host.objects).await;
            host.objects.counts.take();
            assert!(matches!(ingest(&host, &[&sent]).await[0], Outcome::Committed { .. }));
            let counts = host.objects.counts.take();
            counts.iter().for_each(|(kind, count)| *all.entry(*kind).or_default() += count);
            // Every sixth call writes the checkpoint too, once its acknowledgement is out.
            let with_checkpoint = sequence % 6 == 0;
            let total: u64 = counts.values().sum();
            if !with_checkpoint {
                most = most.max(total);
            }
        }
        let mean = all.values().sum::<u64>() as f64 / BATCHES as f64;
        println!(
            "requests per batch: at most {most}, with checkpoints {mean:.1} on average, by kind {all:?} of {BATCHES}"
        );
        assert!(most <= REQUESTS_MAX, "{most}");
        assert!(mean <= REQUESTS_MAX as f64, "{mean}");
    });
}
