//! Event bodies: S3 notification, EventBridge, CloudEvents, MinIO webhook, and our own
//! `{"manifests": ["inbox/..."]}`. Queues and topics may wrap them.

use std::collections::BTreeSet;

use ribera_storage::object::ObjectPath;
use ribera_storage::{Error, Result};
use serde_json::Value;

/// Bytes of an event body at most.
pub const EVENT_BYTES_MAX: usize = 1 << 20;

/// Manifests that one event may name; further ones are the sweep's.
pub const EVENT_MANIFESTS_MAX: usize = 1000;

/// Wrappings in one another: a topic's message in a queue's in an event.
const DEPTH_MAX: u8 = 4;

/// The inbox paths that an event body names, without repeats, in order. Keys elsewhere than in
/// `inbox/` and keys that are no path are left out: the sweep is the truth.
pub fn manifest_paths(body: &[u8]) -> Result<Vec<ObjectPath>> {
    if body.len() > EVENT_BYTES_MAX {
        return Err(Error::reject(format!("event: must be at most {EVENT_BYTES_MAX} bytes, got {}", body.len())));
    }
    let event: Value =
        serde_json::from_slice(body).map_err(|error| Error::reject(format!("event: must be JSON, got: {error}")))?;
    let mut keys = Keys::default();
    keys.read(&event, 0);
    if !keys.recognised {
        return Err(Error::reject(
            "event: must be an S3 notification, an EventBridge event, a CloudEvent, a MinIO webhook or {\"manifests\": [...]}, got other JSON",
        ));
    }
    Ok(keys.paths)
}

#[derive(Default)]
struct Keys {
    paths: Vec<ObjectPath>,
    seen: BTreeSet<String>,
    recognised: bool,
}

impl Keys {
    fn read(&mut self, event: &Value, depth: u8) {
        if depth > DEPTH_MAX {
            return;
        }
        match event {
            // A batch of CloudEvents, or of anything else.
            Value::Array(events) => events.iter().for_each(|event| self.read(event, depth + 1)),
            // A queue's or topic's message is the event as text.
            Value::String(text) => {
                if let Ok(inner @ (Value::Object(_) | Value::Array(_))) = serde_json::from_str(text) {
                    self.read(&inner, depth + 1);
                }
            }
            Value::Object(_) => self.read_object(event, depth),
            _ => {}
        }
    }

    fn read_object(&mut self, event: &Value, depth: u8) {
        if let Some(Value::Array(paths)) = event.get("manifests") {
            self.recognised = true;
            paths.iter().filter_map(Value::as_str).for_each(|path| self.add(path));
        }
        if let Some(Value::Array(records)) = event.get("Records") {
            self.recognised = true;
            records.iter().for_each(|record| self.read_record(record, depth));
        }
        // EventBridge: the key stands as it is.
        if let Some(key) = event.pointer("/detail/object/key").and_then(Value::as_str) {
            self.recognised = true;
            self.add(key);
        }
        if event.get("specversion").is_some() {
            self.recognised = true;
            self.read_cloud_event(event, depth);
        }
        if let Some(message @ Value::String(_)) = event.get("Message") {
            self.read(message, depth + 1);
        }
    }

    fn read_record(&mut self, record: &Value, depth: u8) {
        // S3 encodes keys as in a form.
        if let Some(key) = record.pointer("/s3/object/key").and_then(Value::as_str) {
            self.add(&decoded(key));
        }
        if let Some(body) = record.get("body") {
            self.read(body, depth + 1);
        }
        if let Some(message) = record.pointer("/Sns/Message") {
            self.read(message, depth + 1);
        }
    }

    /// The object is the subject (its last part, on some clouds), or named in the data.
    fn read_cloud_event(&mut self, event: &Value, depth: u8) {
        if let Some(subject) = event.get("subject").and_then(Value::as_str) {
            self.add(subject.find("inbox/").map_or("", |at| &subject[at..]));
        }
        let Some(data) = event.get("data") else { return };
        for pointer in ["/name", "/key", "/object/key", "/object/name"] {
            if let Some(key) = data.pointer(pointer).and_then(Value::as_str) {
                self.add(key);
            }
        }
        self.read(data, depth + 1);
    }

    fn add(&mut self, key: &str) {
        if self.paths.len() < EVENT_MANIFESTS_MAX
            && key.starts_with("inbox/")
            && let Ok(path) = ObjectPath::new(key)
            && self.seen.insert(path.to_string())
        {
            self.paths.push(path);
        }
    }
}

/// Percent signs and plus signs decoded; what is no encoding stays as it is, and then is no path.
fn decoded(key: &str) -> String {
    let mut bytes = Vec::with_capacity(key.len());
    let mut rest = key.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'+', _) => bytes.push(b' '),
            (b'%', [high, low, ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) => {
                    bytes.push(high << 4 | low);
                    rest = &after[2..];
                }
                _ => bytes.push(b'%'),
            },
            _ => bytes.push(*first),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(digit: u8) -> Option<u8> {
    (digit as char).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "inbox/s1/ventas/000000-0000000001.json";

    fn paths(body: &str) -> Vec<String> {
        manifest_paths(body.as_bytes()).unwrap().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_kind_of_event_names_its_manifest() {
        let s3 = format!(
            r#"{{"Records":[{{"eventName":"ObjectCreated:Put","s3":{{"object":{{"key":"{}"}}}}}}]}}"#,
            PATH.replace('/', "%2F")
        );
        let minio = format!(
            r#"{{"EventName":"s3:ObjectCreated:Put","Key":"lake/{PATH}","Records":[{{"s3":{{"object":{{"key":"{PATH}"}}}}}}]}}"#
        );
        let bridge = format!(r#"{{"detail-type":"Object Created","detail":{{"object":{{"key":"{PATH}"}}}}}}"#);
        let cloud = format!(r#"{{"specversion":"1.0","type":"x","subject":"objects/{PATH}"}}"#);
        let cloud_data = format!(r#"[{{"specversion":"1.0","type":"x","data":{{"bucket":"b","name":"{PATH}"}}}}]"#);
        let queue = format!(r#"{{"Records":[{{"body":{}}}]}}"#, serde_json::to_string(&s3).unwrap());
        let topic = format!(r#"{{"Records":[{{"Sns":{{"Message":{}}}}}]}}"#, serde_json::to_string(&s3).unwrap());
        let own = format!(r#"{{"manifests":["{PATH}","{PATH}"]}}"#);
        for body in [s3, minio, bridge, cloud, cloud_data, queue, topic, own] {
            assert_eq!(paths(&body), [PATH], "{body}");
        }
    }

    #[test]
    fn keys_outside_the_inbox_and_path_tricks_are_left_out() {
        let body = r#"{"manifests":["landing/x","inbox/../control/x","inbox/%2e%2e/x","inbox//x","inbox/a b",7,null]}"#;
        assert_eq!(paths(body), Vec::<String>::new());
        let body = r#"{"Records":[{"s3":{"object":{"key":"inbox%2F..%2F..%2Fetc"}}},{"s3":{"object":{"key":"inbox%2"}}},{"s3":7},"x"]}"#;
        assert_eq!(paths(body), Vec::<String>::new());
    }

    #[test]
    fn other_bodies_are_refused_saying_what_is_expected() {
        let deep = "[".repeat(100_000);
        let large = " ".repeat(EVENT_BYTES_MAX + 1);
        for body in ["", "x", "7", "{}", r#"{"hello":1}"#, &deep, &large] {
            let error = manifest_paths(body.as_bytes()).unwrap_err();
            assert!(error.message().starts_with("event: must be"), "{error}");
        }
    }
}
