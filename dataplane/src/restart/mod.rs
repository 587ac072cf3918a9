//! What outlives the daemon: its tables lie in files of memory, beside a record of what they are, and the
//! next one takes over what is in them (`docs/restart.md`).
//!
//! Each daemon has a directory of its own among those of the ones before it, by number. It reads what the
//! last one left, opens anew what it finds there, and only then writes its record and deletes the others: killed
//! in between, it has changed nothing. A lock keeps two daemons out of each other's way.

mod record; // what is written beside the tables

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use control::Refusal;
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use crate::config::Config;
use crate::control::model::{Kept, Model};
use crate::counters::{self, ServerPage, ServicePage};
use crate::mem::{self, Place};
use crate::time::Clock;
use crate::{conn, templates};

pub use record::Unusable;

/// Of a worker's files.
const RECORD: &str = "record";
const LOCK: &str = "lock";
const TEMPLATES: &str = "templates";

/// How much there is of everything, as the configuration says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    pub workers: usize,
    /// Entries of the table by which packets are spread over them.
    pub reta: usize,
    /// Per worker.
    pub connections: u32,
    pub templates: u32,
    pub services: usize,
    pub servers: usize,
}

impl Sizes {
    /// What all files take together, with records.
    fn bytes(&self) -> u64 {
        let pages =
            self.servers * size_of::<ServerPage>() + self.services * size_of::<ServicePage>();
        let worker = conn::Left::bytes(self.connections) + pages as u64;
        worker * self.workers as u64 + templates::Left::bytes(self.templates) + RECORDS
    }
}

/// What a record takes, or a few.
const RECORDS: u64 = 64 << 20;

#[derive(Debug, Serialize, Deserialize)]
struct Record<K> {
    /// Memory does not outlive the system.
    boot: String,
    /// The start of the workers' time.
    clock_ns: u64,
    sizes: Sizes,
    kept: K,
}

/// The directory that all this lies in, and nobody else's while this is there.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

/// Why a directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NoDirectory {
    #[error("another directord keeps its state in {}; another [restart] directory is right", .0.display())]
    Taken(PathBuf),
    #[error("others may write to {}; one that is our own, with mode 0700, is right", .0.display())]
    NotOurs(PathBuf),
    #[error("{} is on a disk; a directory in /dev/shm, or on another tmpfs or hugetlbfs, is right", .0.display())]
    NotMemory(PathBuf),
    #[error("{}: {}", path.display(), error)]
    Io { path: PathBuf, error: io::Error },
}

impl Directory {
    /// Makes the directory if it is not there, and locks it.
    pub fn take(path: &Path) -> Result<Self, NoDirectory> {
        let failed = |error| NoDirectory::Io {
            path: path.to_owned(),
            error,
        };
        let mut builder = DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(path);
        made.map_err(failed)?;
        let directory = File::open(path).map_err(failed)?;
        let found = directory.metadata().map_err(failed)?;
        if found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
            return Err(NoDirectory::NotOurs(path.to_owned()));
        }
        if !mem::holds_memory(&directory).map_err(failed)? {
            return Err(NoDirectory::NotMemory(path.to_owned()));
        }
        let mut options = OpenOptions::new();
        let options = options.create(true).truncate(false).read(true).write(true);
        let lock = options.mode(0o600).open(path.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(fs::TryLockError::WouldBlock) => Err(NoDirectory::Taken(path.to_owned())),
            Err(fs::TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    /// What the last daemon left, if it left anything.
    pub fn left(&self) -> Option<Result<Image, Unusable>> {
        left(&self.path)
    }

    /// Where the tables of this daemon go. Those of daemons that did not come to an end of their start go.
    pub fn begin(&self) -> io::Result<Generation> {
        let numbers = generations(&self.path)?;
        let complete = complete(&self.path, &numbers);
        for number in numbers.iter().filter(|number| Some(**number) != complete) {
            fs::remove_dir_all(self.path.join(number.to_string()))?;
        }
        let number = numbers.into_iter().max().unwrap_or(0) + 1;
        let path = self.path.join(number.to_string());
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Generation { path, number })
    }

    /// From now on there is but this one.
    pub fn forget_others(&self, own: &Generation) -> io::Result<()> {
        let others = generations(&self.path)?.into_iter();
        for number in others.filter(|number| *number != own.number) {
            fs::remove_dir_all(self.path.join(number.to_string()))?;
        }
        Ok(())
    }
}

/// Whether a director with these tables has room beside the one that has the directory now.
pub fn has_room(directory: &Path, sizes: &Sizes) -> io::Result<()> {
    mem::has_room(&File::open(directory)?, sizes.bytes())
}

/// What a daemon would find in this directory, whoever has it now.
pub fn left(directory: &Path) -> Option<Result<Image, Unusable>> {
    let numbers = match generations(directory) {
        Ok(numbers) => numbers,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => return Some(Err(error.into())),
    };
    let number = complete(directory, &numbers)?;
    Some(Image::open(&directory.join(number.to_string())))
}

/// The newest of these that was finished.
fn complete(directory: &Path, numbers: &[u64]) -> Option<u64> {
    let is_complete = |number: &u64| directory.join(number.to_string()).join(RECORD).exists();
    numbers.iter().copied().filter(is_complete).max()
}

fn generations(directory: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(directory)? {
        numbers.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u64>().ok()),
        );
    }
    Ok(numbers)
}

/// One daemon's share of the directory.
#[derive(Debug, Clone)]
pub struct Generation {
    path: PathBuf,
    number: u64,
}

impl Generation {
    /// For arrays.
    pub fn place(&self) -> Place {
        Place::files(&self.path)
    }

    /// Writes down what the tables are, in place of what was said before.
    pub fn write(&self, clock: Clock, sizes: Sizes, kept: &Kept) -> io::Result<()> {
        let record = Record {
            boot: boot()?,
            clock_ns: clock.started_ns(),
            sizes,
            kept,
        };
        record::write(&self.path.join(RECORD), &record)
    }
}

/// Where a worker's tables lie.
pub fn of_worker(place: &Place, worker: usize) -> Place {
    place.of(&owner(worker))
}

/// Where the table of templates lies.
pub fn of_templates(place: &Place) -> Place {
    place.of(TEMPLATES)
}

fn owner(worker: usize) -> String {
    format!("worker{worker}")
}

fn boot() -> io::Result<String> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

/// What a daemon left.
#[derive(Debug)]
pub struct Image {
    pub clock: Clock,
    pub sizes: Sizes,
    pub kept: Kept,
    pub workers: Vec<WorkerImage>,
    pub templates: templates::Left,
}

/// What one worker left.
#[derive(Debug)]
pub struct WorkerImage {
    pub conns: conn::Left,
    servers: mem::Left,
    services: mem::Left,
}

impl WorkerImage {
    /// What it counted of the server that had this number.
    pub fn server(&self, number: usize) -> Option<ServerPage> {
        self.servers.get(number)
    }

    /// The same of a service.
    pub fn service(&self, number: usize) -> Option<ServicePage> {
        self.services.get(number)
    }
}

impl Image {
    /// Whether a director with this configuration would go on with it.
    pub fn fits(&self, config: &Config) -> Result<(), Refusal> {
        let mut model = Model::new(config.director.limits()).with_ports(config.port_specs());
        model = model.networked(config.setup(|_| [0; 6]));
        let services = self.kept.changes(&model.conf());
        model.check(&services)
    }

    fn open(path: &Path) -> Result<Self, Unusable> {
        let record: Record<Kept> = record::read(&path.join(RECORD))?;
        if record.boot != boot()? {
            return Err(Unusable::OtherBoot);
        }
        let sizes = record.sizes;
        let worker = |worker: usize| {
            let owner = owner(worker);
            let open = |name: &str| mem::Left::open(&path.join(format!("{owner}.{name}")));
            Ok(WorkerImage {
                conns: conn::Left::open(path, &owner, sizes.connections)?,
                servers: open(counters::SERVERS)?,
                services: open(counters::SERVICES)?,
            })
        };
        let workers = (0..sizes.workers).map(worker);
        Ok(Self {
            clock: Clock::resume(record.clock_ns).ok_or(Unusable::OtherBoot)?,
            sizes,
            kept: record.kept,
            workers: workers.collect::<io::Result<_>>()?,
            templates: templates::Left::open(path, TEMPLATES, sizes.templates)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::templates::Templates;

    const SIZES: Sizes = Sizes {
        workers: 1,
        reta: 128,
        connections: 100,
        templates: 64,
        services: 4,
        servers: 4,
    };

    /// In memory.
    fn directory() -> tempfile::TempDir {
        tempfile::tempdir_in("/dev/shm").unwrap()
    }

    /// The tables of a daemon, which are as good as those of one that ended.
    fn fill(generation: &Generation) {
        let place = generation.place();
        let own = of_worker(&place, 0);
        conn::Conns::within(&own, SIZES.connections, [1, 2]).unwrap();
        let page = counters::Page::within(&own, SIZES.services, SIZES.servers).unwrap();
        page.servers[2].conns.add(77);
        Templates::within(&of_templates(&place), SIZES.templates, [3, 4]).unwrap();
    }

    #[test]
    fn what_is_finished_is_found_and_nothing_else() {
        let root = directory();
        let path = root.path().join("state");
        assert!(left(&path).is_none());
        let directory = Directory::take(&path).unwrap();
        assert!(directory.left().is_none());
        let first = directory.begin().unwrap();
        fill(&first);
        assert!(directory.left().is_none(), "it is not finished");
        let clock = Clock::start();
        first.write(clock, SIZES, &Kept::default()).unwrap();
        directory.forget_others(&first).unwrap();

        // A second one that did not come to its end.
        fill(&directory.begin().unwrap());
        let image = directory.left().unwrap().unwrap();
        assert_eq!((image.clock, image.sizes), (clock, SIZES));
        assert_eq!(image.workers[0].server(2).unwrap().conns.get(), 77);
        assert!(image.workers[0].server(1 << 20).is_none());

        let third = directory.begin().unwrap();
        assert_eq!((third.number, generations(&path).unwrap().len()), (3, 2));
        fill(&third);
        third.write(clock, SIZES, &Kept::default()).unwrap();
        directory.forget_others(&third).unwrap();
        assert_eq!(generations(&path).unwrap(), [3]);
        assert!(image.workers[0].server(2).is_some(), "it is still read");
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let refusal = |spoil: &dyn Fn(&Path)| {
            let root = directory();
            let directory = Directory::take(root.path()).unwrap();
            let generation = directory.begin().unwrap();
            fill(&generation);
            (generation.write(Clock::start(), SIZES, &Kept::default())).unwrap();
            spoil(&root.path().join("1"));
            directory.left().unwrap().unwrap_err().to_string()
        };
        let gone = refusal(&|path| fs::remove_file(path.join("worker0.wide")).unwrap());
        assert!(gone.contains("worker0.wide: No such file"), "{gone}");
        let short = |name: &str| {
            let name = name.to_owned();
            refusal(&move |path| {
                let file = OpenOptions::new().write(true).open(path.join(&name));
                file.unwrap().set_len(4096).unwrap();
            })
        };
        for name in ["worker0.entries", "templates.lines"] {
            assert!(short(name).contains("shorter than"), "{}", short(name));
        }
        let foreign = refusal(&|path| {
            let file = path.join("worker0.servers");
            fs::set_permissions(file, fs::Permissions::from_mode(0o666)).unwrap();
        });
        assert!(foreign.contains("of our own"), "{foreign}");
        let other_boot = refusal(&|path| {
            let record = Record {
                boot: "another".to_owned(),
                clock_ns: 1,
                sizes: SIZES,
                kept: Kept::default(),
            };
            record::write(&path.join(RECORD), &record).unwrap();
        });
        assert!(
            other_boot.contains("before the system was started"),
            "{other_boot}"
        );
    }

    #[test]
    fn the_directory_is_ours_alone() {
        let root = directory();
        let first = Directory::take(root.path()).unwrap();
        let taken = Directory::take(root.path()).unwrap_err().to_string();
        assert!(
            taken.starts_with("another directord keeps its state in"),
            "{taken}"
        );
        drop(first);
        drop(Directory::take(root.path()).unwrap());
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let open = Directory::take(root.path()).unwrap_err().to_string();
        assert!(open.starts_with("others may write to"), "{open}");
        let disk = env!("CARGO_MANIFEST_DIR");
        if !mem::holds_memory(&File::open(disk).unwrap()).unwrap() {
            let on_disk = tempfile::tempdir_in(disk).unwrap();
            let on_disk = Directory::take(on_disk.path()).unwrap_err().to_string();
            assert!(on_disk.contains("is on a disk"), "{on_disk}");
        }
    }
}
