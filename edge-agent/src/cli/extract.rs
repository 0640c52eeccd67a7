//! `ribera-agent extract`: named days, a batch per day.

use super::{Common, Days, Stopped, checked, once};
use crate::report::Exit;
use crate::run::collect::RunMode;

pub async fn main(common: &Common, days: &Days) -> Result<Exit, Stopped> {
    let ask = RunMode::Extract { days: checked(days)?, force: days.force };
    once::run(common, "extract", ask, &days.wait).await
}
