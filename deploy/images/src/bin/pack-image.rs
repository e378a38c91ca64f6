//! Writes an OCI image archive from a list of files; see `USAGE`.

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use images::archive::{self, Runtime};
use images::layer::{Entry, Layer};

const USAGE: &str = "usage: pack-image --name NAME:TAG --output FILE.tar [what goes in] [how it runs]
  --binary SOURCE=PATH      a static executable, mode 755 (a dynamically linked one is refused)
  --file SOURCE=PATH        any other file, mode 644
  --dir PATH[=MODE]         an empty directory, octal mode (default 755)
  --link PATH=TARGET        a symbolic link
  --entrypoint WORD         repeat for more words
  --cmd WORD                repeat for more words
  --env NAME=VALUE          repeat for more variables
  --user USER[:GROUP]       --workdir PATH
Import it with: ctr -n k8s.io images import FILE.tar";

/// Files larger than this are a mistake, not a layer.
const MAX_FILE_BYTES: u64 = 1024 * 1024 * 1024;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--help" || arg == "-h") {
        println!("{USAGE}");
        return ExitCode::SUCCESS;
    }
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pack-image: {error:#}\n(pack-image --help lists the arguments)");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &[String]) -> Result<()> {
    let mut image = Image::default();
    let mut args = args.iter();
    while let Some(flag) = args.next() {
        let value = args.next().with_context(|| format!("{flag} wants a value"))?;
        image
            .set(flag, value)
            .with_context(|| format!("{flag} {value}"))?;
    }
    image.write()
}

#[derive(Default)]
struct Image {
    name: String,
    output: String,
    layer: Layer,
    runtime: Runtime,
}

impl Image {
    fn set(&mut self, flag: &str, value: &str) -> Result<()> {
        let owned = value.to_owned();
        match flag {
            "--name" => self.name = owned,
            "--output" => self.output = owned,
            "--entrypoint" => self.runtime.entrypoint.push(owned),
            "--cmd" => self.runtime.cmd.push(owned),
            "--env" => self.runtime.env.push(owned),
            "--user" => self.runtime.user = owned,
            "--workdir" => self.runtime.working_dir = owned,
            "--binary" => self.add_binary(value)?,
            "--file" => self.add_file(value)?,
            "--dir" => self.add_dir(value)?,
            "--link" => {
                let (path, target) = pair(value)?;
                self.layer.add(
                    path,
                    Entry::Symlink {
                        target: target.to_owned(),
                    },
                )?;
            }
            _ => bail!("unknown argument"),
        }
        Ok(())
    }

    fn add_binary(&mut self, value: &str) -> Result<()> {
        let (source, path) = pair(value)?;
        let bytes = read(source)?;
        must_be_static(&bytes).with_context(|| source.to_owned())?;
        self.layer.add(path, Entry::File { bytes, mode: 0o755 })
    }

    fn add_file(&mut self, value: &str) -> Result<()> {
        let (source, path) = pair(value)?;
        self.layer.add(
            path,
            Entry::File {
                bytes: read(source)?,
                mode: 0o644,
            },
        )
    }

    fn add_dir(&mut self, value: &str) -> Result<()> {
        let (path, mode) = value.split_once('=').unwrap_or((value, "755"));
        let mode = u32::from_str_radix(mode, 8).ok().filter(|m| *m <= 0o7777);
        self.layer.add(
            path,
            Entry::Dir {
                mode: mode.context("the mode is not octal")?,
            },
        )
    }

    fn write(self) -> Result<()> {
        if self.output.is_empty() {
            bail!("--output is missing");
        }
        if !self.name.contains('/') || !self.name.contains(':') {
            bail!(
                "--name {:?} must be a full name with a host and a tag, such as localhost/demo:0.1",
                self.name
            );
        }
        let bytes = archive::pack(&self.name, &self.runtime, self.layer)?;
        // Renamed into place: whoever imports the archive never sees half of it.
        let unfinished = format!("{}.unfinished", self.output);
        std::fs::write(&unfinished, bytes).with_context(|| format!("cannot write {unfinished}"))?;
        std::fs::rename(&unfinished, &self.output).with_context(|| format!("cannot write {}", self.output))
    }
}

fn pair(value: &str) -> Result<(&str, &str)> {
    value
        .split_once('=')
        .context("wants two parts with = between them")
}

fn read(source: &str) -> Result<Vec<u8>> {
    let bytes = Path::new(source)
        .metadata()
        .with_context(|| format!("cannot read {source}"))?
        .len();
    if bytes > MAX_FILE_BYTES {
        bail!("{source} is larger than {MAX_FILE_BYTES} bytes");
    }
    std::fs::read(source).with_context(|| format!("cannot read {source}"))
}

/// A 64-bit ELF file that asks for an interpreter would not start: the image holds no dynamic loader.
fn must_be_static(elf: &[u8]) -> Result<()> {
    const PT_INTERP: u64 = 3;
    if !elf.starts_with(b"\x7fELF\x02\x01") {
        bail!("is not a 64-bit little-endian ELF executable");
    }
    let table = number(elf, 32, 8).context("has a truncated ELF header")?;
    let entry_size = number(elf, 54, 2).context("has a truncated ELF header")?;
    let entries = number(elf, 56, 2).context("has a truncated ELF header")?;
    for entry in 0..entries {
        let offset = table.saturating_add(entry * entry_size);
        let kind = usize::try_from(offset).ok().and_then(|at| number(elf, at, 4));
        if kind.context("has a truncated program header table")? == PT_INTERP {
            bail!("is dynamically linked; build it with -C target-feature=+crt-static");
        }
    }
    Ok(())
}

fn number(bytes: &[u8], at: usize, len: usize) -> Option<u64> {
    let field = bytes.get(at..at.checked_add(len)?)?;
    Some(
        field
            .iter()
            .rev()
            .fold(0, |sum, byte| sum << 8 | u64::from(*byte)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with one program header of this type.
    fn elf(kind: u8) -> Vec<u8> {
        let mut bytes = vec![0; 64 + 56];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        (bytes[32], bytes[54], bytes[56], bytes[64]) = (64, 56, 1, kind);
        bytes
    }

    #[test]
    fn a_dynamically_linked_binary_is_refused() {
        assert!(must_be_static(&elf(1)).is_ok());
        assert!(must_be_static(&elf(3)).is_err());
    }

    #[test]
    fn broken_binaries_are_errors_not_panics() {
        for len in 0..elf(1).len() {
            let cut = must_be_static(&elf(1)[..len]);
            assert!(cut.is_err() || len >= 68, "{len} bytes passed");
        }
        let mut wild = elf(1);
        wild[32..40].fill(0xff);
        assert!(must_be_static(&wild).is_err());
    }

    #[test]
    fn a_name_without_host_or_tag_is_refused() {
        for name in ["pause", "localhost/pause", "pause:1"] {
            let args = ["--name", name, "--output", "/nonexistent/x"].map(str::to_owned);
            let error = run(&args).expect_err("refused").to_string();
            assert!(error.contains("--name"), "{error}");
        }
    }
}
