//! `sipcloud weight INSTANCE PERCENT`: gives one proxy another share of the calls.

use anyhow::Result;

use crate::cli;
use crate::command::{manager_of, refusal, small_runtime};
use crate::exit::Exit;

pub(crate) fn run(arguments: &cli::Weight) -> Result<Option<Exit>> {
    let (instance, weight) = (arguments.instance, arguments.weight);
    let manager = manager_of(&arguments.data.data)?;
    let asked = manager.weigh(instance, weight, "sipcloud weight");
    let answer = small_runtime()?.block_on(asked).map_err(refusal)?;
    if arguments.json {
        println!("{}", serde_json::to_string(&answer)?);
    } else {
        println!("{instance} has weight {weight} from now on; watch it with: sipcloud status");
    }
    Ok(None)
}
