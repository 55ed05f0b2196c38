//! What the user asks for.

use std::path::PathBuf;
use std::str::FromStr;

use multibit::cpu::Isa;

const HELP: &str = "\
Times the kernels of packed layers on the instruction sets of this machine.

  --isa NAME       only on this instruction set [default: all that the processor has]
  --only TEXT      only cases whose name contains this
  --threads N      threads of a kernel [default: 1]
  --json FILE      also write the result here
";

/// What the user asks for.
pub struct Args {
    pub isas: Vec<Isa>,
    pub only: String,
    pub threads: usize,
    pub json: Option<PathBuf>,
}

impl Args {
    /// None if help was all that was asked for.
    pub fn parse(args: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let mut parsed = Self {
            isas: Isa::available(),
            only: String::new(),
            threads: 1,
            json: None,
        };
        // Cargo runs a benchmark in the folder of its package; relative files are the user's.
        let mut from = PathBuf::new();
        let mut args = args;
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--isa" => parsed.isas = vec![isa(&value::<String>(&arg, &mut args)?)?],
                "--only" => parsed.only = value(&arg, &mut args)?,
                "--threads" => parsed.threads = value(&arg, &mut args)?,
                "--json" => parsed.json = Some(value(&arg, &mut args)?),
                "--from" => from = value(&arg, &mut args)?,
                // What cargo bench passes.
                "--bench" => {}
                "--help" | "-h" => {
                    print!("{HELP}");
                    return Ok(None);
                }
                _ => return Err(format!("no argument {arg}; --help lists them")),
            }
        }
        parsed.json = parsed.json.map(|file| from.join(file));
        if let Some(folder) = parsed.json.as_ref().and_then(|file| file.parent())
            && !folder.is_dir()
        {
            return Err(format!("--json: there is no folder {}", folder.display()));
        }
        Ok(Some(parsed))
    }
}

fn value<T: FromStr>(flag: &str, args: &mut impl Iterator<Item = String>) -> Result<T, String> {
    let text = args.next().ok_or(format!("{flag} needs a value"))?;
    let value = text.parse();
    value.map_err(|_| format!("{flag} {text}: not a value that it takes"))
}

fn isa(name: &str) -> Result<Isa, String> {
    Isa::named(name).ok_or_else(|| {
        let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
        format!(
            "no instruction set {name}; this processor has {}",
            names.join(", ")
        )
    })
}
