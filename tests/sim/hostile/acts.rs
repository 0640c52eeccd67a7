//! What the hostile store does, one kind after the other.

use std::rc::Rc;
use std::sync::Arc;

use arrow_array::{ArrayRef, Int64Array, StringArray};
use bytes::Bytes;
use jiff::ToSpan;
use jiff::civil::date;
use ribera_storage::batch::{DIFFERING_BYTES_MAX, MANIFEST_BYTES_MAX};
use ribera_storage::heartbeat::HEARTBEAT_BYTES_MAX;
use ribera_storage::ids::Position;
use ribera_storage::{BatchId, ExactDecimal, Month, paths};
use serde_json::{Value, json};

use super::forge::{self, Forged, name_file};
use super::{HostileStore, STORE};

macro_rules! acts {
    ($($(#[$doc:meta])* $act:ident: $name:literal,)*) => {
        /// Every kind of hostile act. One that never happens in a whole run fails the run.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Act { $($(#[$doc])* $act,)* }

        impl Act {
            pub const ALL: &[Self] = &[$(Self::$act,)*];

            pub fn name(self) -> &'static str {
                match self { $(Self::$act => $name,)* }
            }
        }
    };
}

acts! {
    /// True to its own word: of such days some are complete.
    SoundBatch: "sound batch",
    SoundMonth: "sound batch of several days",
    AuditDiffers: "audit that differs",
    FactsDiffer: "facts that its file denies",
    OpenDay: "closed day that is not over",
    SumNames: "sums by forbidden names",
    SumOfNoColumn: "sum that no definition names",
    HugeSums: "sums of 38 digits",
    WrongBatch: "manifest of another batch",
    WrongMonth: "units of another month",
    FarDates: "dates of the years 1 and 9999",
    ManyUnits: "more units than a month has days",
    RowsOverflow: "rows that no number holds",
    TopPosition: "highest position there is",
    TopPositionInJson: "position beyond its digits",
    UnknownDataset: "dataset that is not declared",
    UnknownVersion: "version of a dataset that is none",
    ControlCharacters: "control characters everywhere",
    GarbageManifest: "manifest of random bytes",
    TruncatedManifest: "manifest cut short",
    HugeManifest: "manifest larger than one may be",
    DeepManifest: "manifest of brackets in brackets",
    DamagedFile: "damaged Parquet",
    OddFile: "Parquet of other columns",
    BadRows: "rows of other days and doubled keys",
    ForeignFile: "file of another manifest",
    OthersFile: "file of another store",
    NoFile: "manifest without a file",
    LongFile: "file longer than stated",
    StatedHuge: "file that would not fit in memory",
    DifferingList: "list of differing units",
    DifferingEmpty: "empty list of differing units",
    DifferingUnreadable: "unreadable list of differing units",
    DifferingHuge: "list of differing units too large",
    Heartbeat: "heartbeat of any bytes",
    HugeHeartbeat: "heartbeat too large",
    EpochClaim: "claims of epochs by any name",
    OddNames: "objects by odd names",
    CrowdInInbox: "crowd of objects in the inbox",
    CrowdInAgents: "crowd of objects in its folder",
    Replay: "replay of an older manifest",
    Overwrite: "older manifest written over",
    Delete: "own object deleted",
}

const SUM_NAMES: [&str; 9] =
    ["a,b", "z|2026-02-20;0;99;c=r;1;1;5", "z|x", "a;b", "", "total ", "Ñ", "x\u{1b}[2J", "cantidad,total|*"];

/// Far more than any reader may ask for.
const HUGE: usize = 5 << 20;

impl HostileStore {
    /// False when it could not be done yet: nothing was sent before.
    pub(super) fn act(self: &Rc<Self>, act: Act) -> bool {
        match act {
            Act::SoundBatch | Act::SoundMonth | Act::AuditDiffers | Act::FactsDiffer | Act::OpenDay => self.facts(act),
            Act::SumNames | Act::SumOfNoColumn | Act::HugeSums => self.sums(act),
            Act::WrongBatch | Act::WrongMonth | Act::FarDates | Act::ManyUnits | Act::RowsOverflow => self.units(act),
            Act::TopPosition | Act::TopPositionInJson => self.positions(act),
            Act::UnknownDataset | Act::UnknownVersion | Act::ControlCharacters => self.words(act),
            Act::GarbageManifest | Act::TruncatedManifest | Act::HugeManifest | Act::DeepManifest => self.bytes(act),
            Act::DamagedFile | Act::OddFile | Act::BadRows => self.contents(act),
            Act::ForeignFile | Act::OthersFile | Act::NoFile | Act::LongFile | Act::StatedHuge => self.files(act),
            Act::DifferingList | Act::DifferingEmpty | Act::DifferingUnreadable | Act::DifferingHuge => self.lists(act),
            Act::Heartbeat | Act::HugeHeartbeat | Act::EpochClaim | Act::OddNames => self.others(act),
            Act::CrowdInInbox => self.crowd(&format!("inbox/{STORE}/ventas"), 300),
            Act::CrowdInAgents => self.crowd(&format!("agents/{STORE}/ventas/epoch"), 1_010),
            Act::Replay | Act::Overwrite | Act::Delete => self.again(act),
        }
    }

    fn fresh(&self) -> Forged {
        self.sound(self.next_batch(), self.a_day())
    }

    fn facts(&self, act: Act) -> bool {
        let mut forged = match act {
            Act::OpenDay => {
                let ahead = self.chance.between(0, 3);
                self.sound(self.next_batch(), self.today().checked_add(ahead.days()).expect("a date"))
            }
            Act::SoundMonth => {
                let last = self.a_day();
                let days: Vec<_> = last.first_of_month().series(1.day()).take_while(|day| *day <= last).collect();
                let days = days.into_iter().filter(|day| *day >= self.first).collect::<Vec<_>>();
                let lines: Vec<_> = days.iter().flat_map(|day| self.lines(*day)).collect();
                self.of_lines(self.next_batch(), &days, &lines)
            }
            _ => self.fresh(),
        };
        let facts = &mut forged.manifest.units[0];
        match act {
            Act::AuditDiffers => match self.chance.below(3) {
                0 => facts.audit = None,
                1 => facts.closed = false,
                _ => facts.audit.get_or_insert_default().rows += 1,
            },
            Act::FactsDiffer if self.chance.percent(50) => {
                facts.file.sums.insert("total".to_owned(), ExactDecimal::new(7, 2));
            }
            Act::FactsDiffer => {
                facts.file.rows += 1;
                forged.manifest.file.rows += 1;
            }
            _ => {}
        }
        self.send(&forged)
    }

    fn sums(&self, act: Act) -> bool {
        let mut forged = self.fresh();
        let facts = &mut forged.manifest.units[0];
        match act {
            Act::HugeSums => {
                let most = ExactDecimal::new(10_i128.pow(38) - 1, 2);
                facts.file.sums.insert("total".to_owned(), most);
                facts.audit.get_or_insert_default().sums.insert("total".to_owned(), most);
            }
            _ => {
                let name = if act == Act::SumNames { *self.chance.pick(&SUM_NAMES) } else { "precio" };
                let of_audit = facts.audit.iter_mut().filter(|_| self.chance.percent(50));
                for facts in of_audit.chain([&mut facts.file]) {
                    facts.sums.insert(name.to_owned(), ExactDecimal::ZERO);
                }
            }
        }
        self.send(&forged)
    }

    fn units(&self, act: Act) -> bool {
        if act == Act::FarDates {
            let far = [date(1, 1, 1), date(9999, 12, 31), self.first.checked_sub(3.years()).expect("a date")];
            return self.send(&self.sound(self.next_batch(), *self.chance.pick(&far)));
        }
        let forged = self.fresh();
        self.send_edited(&forged, |value| match act {
            Act::WrongBatch => match self.chance.below(3) {
                0 => value["batch"]["store"] = json!("s00"),
                1 => value["batch"]["sequence"] = json!(1),
                _ => value["batch"]["dataset"] = json!("productos"),
            },
            Act::WrongMonth => value["month"] = json!(["1999-01", "9999-12", "2026-13"][self.chance.index(3)]),
            Act::ManyUnits => {
                let unit = value["units"][0].clone();
                value["units"] = Value::Array(vec![unit; 32 + self.chance.index(3_000)]);
            }
            _ => {
                let mut other = value["units"][0].clone();
                other["unit"] = json!(Month::of(self.first).last_day().to_string());
                other["file"]["rows"] = json!(u64::MAX);
                value["units"][0]["file"]["rows"] = json!(2);
                value["units"].as_array_mut().expect("units").push(other);
                value["file"]["rows"] = json!(1);
            }
        })
    }

    fn positions(&self, act: Act) -> bool {
        if act == Act::TopPosition {
            let top = Position { epoch: 999_999, sequence: 9_999_999_999 - self.chance.below(2) };
            return self.send(&self.sound(self.batch(top), self.a_day()));
        }
        let forged = self.fresh();
        self.send_edited(&forged, |value| {
            value["batch"]["epoch"] = json!(u32::MAX);
            value["batch"]["sequence"] = json!(u64::MAX);
        })
    }

    fn words(&self, act: Act) -> bool {
        let mut forged = self.fresh();
        match act {
            Act::UnknownDataset => {
                let dataset = (*self.chance.pick(&["nada", "productos", "ventas_b"])).parse().expect("a name");
                forged.manifest.batch = BatchId { dataset, ..forged.manifest.batch };
                name_file(&mut forged.manifest, &forged.file);
            }
            Act::UnknownVersion => forged.manifest.dataset_version = *self.chance.pick(&[0, 2, u32::MAX]),
            _ => {
                forged.manifest.agent.version = "1\u{1b}[2J\u{7}\r\u{202e}".to_owned();
                forged.manifest.agent.journal_id = "\u{0}\n".repeat(1_000);
                if self.chance.percent(50) {
                    forged.manifest.file.path = "landing/\u{1b}]0;x\u{7}".to_owned();
                    return self.put_manifest(&forged.manifest.batch, forge::json(&forged.manifest));
                }
            }
        }
        self.send(&forged)
    }

    fn bytes(&self, act: Act) -> bool {
        let sound = forge::json(&self.fresh().manifest);
        let bytes = match act {
            Act::GarbageManifest => (0..self.chance.below(300)).map(|_| self.chance.below(256) as u8).collect(),
            Act::TruncatedManifest => sound[..self.chance.index(sound.len())].to_vec(),
            Act::DeepManifest => b"[".repeat(200_000),
            // Sound but for its blanks.
            _ => {
                let mut padded = sound;
                let length = if self.chance.percent(50) { MANIFEST_BYTES_MAX + 1 } else { HUGE };
                padded.resize(length, b' ');
                padded
            }
        };
        self.put_manifest(&self.next_batch(), bytes)
    }

    fn contents(&self, act: Act) -> bool {
        let day = self.a_day();
        let mut lines = self.lines(day);
        lines.push((day, 0, 1_000, 100));
        match act {
            Act::DamagedFile => {
                let forged = self.of_lines(self.next_batch(), &[day], &lines);
                let mut bytes = forged.file.to_vec();
                match self.chance.below(3) {
                    0 => bytes.truncate(self.chance.index(bytes.len())),
                    _ => {
                        for _ in 0..self.chance.between(1, 8) {
                            let index = self.chance.index(bytes.len());
                            bytes[index] = self.chance.below(256) as u8;
                        }
                    }
                }
                self.send_with_file(forged, bytes)
            }
            Act::OddFile => {
                let numbers = Arc::new(Int64Array::from_iter(lines.iter().map(|line| Some(line.1)))) as ArrayRef;
                let texts = Arc::new(StringArray::from(vec!["x"; lines.len()])) as ArrayRef;
                let columns = match self.chance.below(3) {
                    0 => vec![("ticket", numbers)],
                    1 => vec![
                        ("fecha", texts.clone()),
                        ("ticket", numbers),
                        ("cantidad", texts.clone()),
                        ("total", texts),
                    ],
                    _ => vec![("store_id", texts), ("\u{1b}[2J", numbers)],
                };
                let forged = self.of_lines(self.next_batch(), &[day], &lines);
                self.send_with_file(forged, forge::write(columns).to_vec())
            }
            _ => {
                match self.chance.below(2) {
                    0 => lines.push((day, 0, 1, 1)),
                    _ => lines.push((day.yesterday().expect("a date"), 9, 1, 1)),
                }
                let mut forged = self.of_lines(self.next_batch(), &[day], &lines);
                // All rows are counted for the day, wherever they belong.
                forged.manifest.units[0].file = forge::facts_of(lines.iter());
                self.send(&forged)
            }
        }
    }

    fn files(&self, act: Act) -> bool {
        let mut forged = self.fresh();
        match act {
            Act::ForeignFile => {
                let Some(older) = self.one_manifest() else { return false };
                forged.manifest.file = older.file;
            }
            Act::OthersFile => forged.manifest.file.path = forged.manifest.file.path.replace(STORE, "s00"),
            Act::StatedHuge => forged.manifest.file.bytes = *self.chance.pick(&[(128 << 20) + 1, u64::MAX]),
            Act::LongFile => {
                let mut longer = forged.file.to_vec();
                longer.resize(HUGE, 0);
                forged.file = Bytes::from(longer);
                return self.send(&forged);
            }
            _ => {}
        }
        self.put_manifest(&forged.manifest.batch, forge::json(&forged.manifest))
    }

    fn lists(&self, act: Act) -> bool {
        let number = self.list.replace(self.list.get() + 1);
        let bytes = match act {
            Act::DifferingEmpty => br#"{"units":[]}"#.to_vec(),
            Act::DifferingList => {
                let Position { epoch, sequence } = self.position();
                let awaits = json!({"epoch": epoch, "sequence": self.chance.below(sequence + 3)});
                json!({"units": [{"unit": self.a_day().to_string(), "awaits": awaits}]}).to_string().into_bytes()
            }
            Act::DifferingHuge => {
                // Empty, but for its blanks: whoever reads it whole believes it.
                let mut padded = br#"{"units":[]}"#.to_vec();
                padded.resize(if self.chance.percent(50) { DIFFERING_BYTES_MAX + 1 } else { HUGE }, b' ');
                padded
            }
            _ => match self.chance.below(4) {
                0 => Vec::new(),
                1 => br#"{"units":[{"unit":"x"}]}"#.to_vec(),
                2 => b"\x1b[2J\xff".to_vec(),
                _ => b"[".repeat(50_000),
            },
        };
        let prefix = paths::differing(&self.store, &self.dataset);
        self.put(paths::numbered(&prefix, number, "json").expect("a path").as_str(), bytes)
    }

    fn others(&self, act: Act) -> bool {
        let path = paths::heartbeat(&self.store).expect("a path");
        match act {
            Act::Heartbeat => self.put(path.as_str(), b"{\"store\":\"\x1b[2J\"}".to_vec()),
            Act::HugeHeartbeat => self
                .put(path.as_str(), vec![b' '; if self.chance.percent(50) { HEARTBEAT_BYTES_MAX + 1 } else { HUGE }]),
            Act::EpochClaim => {
                let names = ["000000", "000099", "999999", "x", "-1", "0000000001", "~"];
                names.iter().all(|name| self.put(&format!("agents/{STORE}/ventas/epoch/{name}.json"), b"?".to_vec()))
            }
            _ => {
                let below =
                    ["x", "ventas/x.json", "ventas/000000-1.json", "ventas/a/b/c.json", "ventas/000000-0000000001"];
                let odd = |root: &str| below.iter().all(|name| self.put(&format!("{root}{name}"), b"\x1b?".to_vec()));
                odd(&format!("inbox/{STORE}/"))
                    && odd(&format!("agents/{STORE}/"))
                    && odd(&format!("landing/ventas/store_id={STORE}/"))
                    && odd(&format!("landing/nada/store_id={STORE}/"))
            }
        }
    }

    /// Many objects at once. Those in its own folder go again, for nothing of it is believed as long as they lie there.
    fn crowd(self: &Rc<Self>, folder: &str, count: usize) -> bool {
        let mark = self.chance.next_u64();
        let path = |index| format!("{folder}/crowd-{mark:016x}-{index:05}.json");
        let before = self.sent.borrow().len();
        let all = (0..count).all(|index| self.put(&path(index), Bytes::from_static(b"x")));
        let crowd = self.sent.borrow_mut().split_off(before);
        if folder.starts_with("agents/") {
            self.delete_later(crowd.into_iter().map(|(path, _)| path).collect());
        }
        all
    }

    fn again(&self, act: Act) -> bool {
        let prefix = if act == Act::Delete { "" } else { "inbox/" };
        let Some((path, bytes)) = self.one_sent(prefix) else { return false };
        match act {
            Act::Replay => self.put(path.as_str(), bytes),
            Act::Overwrite => {
                let Some(batch) = paths::batch_of("inbox", &path).ok() else {
                    return self.put(path.as_str(), b"y".to_vec());
                };
                self.send(&self.sound(batch, self.a_day()))
            }
            _ => {
                self.lake.delete_by_own_hand(&path);
                true
            }
        }
    }
}
