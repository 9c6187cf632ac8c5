//! Devices by name, and what this machine has.
//!
//! The names are those of burn's features; a build knows those that it was built with, and the CPU.

use burn::tensor::Device;
use serde::Serialize;

use crate::error::{Error, Result};

/// Every kind of device that the library can be built for, the CPU first.
pub const KINDS: [&str; 6] = ["cpu", "cuda", "metal", "rocm", "vulkan", "wgpu"];

/// A device that a run can be put on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DeviceInfo {
    /// What to ask for: `cpu`, `vulkan:0`.
    pub name: String,
    /// What it is, in its maker's words where they are known.
    pub what: String,
    /// Its memory in bytes: of the machine for the CPU, for others the largest single buffer,
    /// which is all that they tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    /// What of it is free, in bytes, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available: Option<u64>,
}

/// Memory of the machine, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What programs can still have without pushing others out.
    pub available: u64,
}

/// The kinds of devices that this build knows.
pub fn built_with() -> Vec<&'static str> {
    KINDS.into_iter().filter(|kind| is_built(kind)).collect()
}

fn is_built(kind: &str) -> bool {
    match kind {
        "cpu" => true,
        "cuda" => cfg!(feature = "cuda"),
        "metal" => cfg!(feature = "metal"),
        "rocm" => cfg!(feature = "rocm"),
        "vulkan" => cfg!(feature = "vulkan"),
        "wgpu" => cfg!(feature = "wgpu"),
        _ => false,
    }
}

/// The device of that name: `cpu`, `vulkan`, `vulkan:1`.
///
/// # Errors
///
/// [`Error::Unknown`] for a name that is none, [`Error::Setting`] for a number that is none or a
/// device that is not there, [`Error::Unsupported`] for a kind that was not built in.
pub(super) fn named(name: &str) -> Result<Device> {
    let lower = name.trim().to_ascii_lowercase();
    let (kind, number) = match lower.split_once(':') {
        Some((kind, number)) => (kind, Some(number)),
        None => (lower.as_str(), None),
    };
    let Some(kind) = KINDS.into_iter().find(|k| *k == kind || (*k == "cpu" && kind == "flex"))
    else {
        return Err(Error::unknown("device", name, KINDS));
    };
    let index = match number.map(str::parse::<usize>) {
        None => 0,
        Some(Ok(index)) => index,
        Some(Err(_)) => {
            let why = format!("`{name}`: wanted a number behind the colon, as in `{kind}:0`");
            return Err(Error::setting("device", why));
        }
    };
    if !is_built(kind) {
        let needs = format!("a build with `--features {kind}`; this one knows {}", listed());
        return Err(Error::unsupported(format!("device {kind}"), needs));
    }
    let found = all_of(kind);
    found.into_iter().nth(index).ok_or_else(|| {
        let why = format!("`{name}` is not there; `tweedie devices` lists those that are");
        Error::setting("device", why)
    })
}

fn listed() -> String {
    built_with().join(", ")
}

/// The devices of one kind that are there, in the order of their numbers.
fn all_of(kind: &str) -> Vec<Device> {
    use burn::tensor::DeviceType as T;
    let filter: Option<T> = match kind {
        #[cfg(feature = "cuda")]
        "cuda" => Some(T::Cuda),
        #[cfg(feature = "metal")]
        "metal" => Some(T::Metal),
        #[cfg(feature = "rocm")]
        "rocm" => Some(T::Rocm),
        #[cfg(feature = "vulkan")]
        "vulkan" => Some(T::Vulkan),
        #[cfg(feature = "wgpu")]
        "wgpu" => Some(T::Wgpu),
        "cpu" => Some(T::Flex),
        _ => None,
    };
    filter.map_or_else(Vec::new, |kind| Device::enumerate(kind).into_vec())
}

/// Every device that this build knows and this machine has.
pub fn devices() -> Vec<DeviceInfo> {
    let memory = memory();
    let mut list = vec![DeviceInfo {
        name: "cpu".to_owned(),
        what: format!("{} cores, {}", cores(), super::instruction_set()),
        memory: memory.map(|m| m.total),
        available: memory.map(|m| m.available),
    }];
    for kind in built_with().into_iter().filter(|k| *k != "cpu") {
        for (index, device) in all_of(kind).iter().enumerate() {
            let (what, memory) = described(device);
            list.push(DeviceInfo {
                name: format!("{kind}:{index}"),
                what,
                memory,
                available: None,
            });
        }
    }
    list
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

#[cfg(any(
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
))]
fn described(device: &Device) -> (String, Option<u64>) {
    use burn::backend::DispatchDevice;
    match device.as_dispatch() {
        DispatchDevice::Cube(cube) => {
            let client = cube.client();
            let properties = client.properties();
            (properties.identity.name.clone(), Some(properties.memory.max_page_size))
        }
        _ => (format!("{device:?}"), None),
    }
}

#[cfg(not(any(
    feature = "cuda",
    feature = "metal",
    feature = "rocm",
    feature = "vulkan",
    feature = "wgpu"
)))]
fn described(device: &Device) -> (String, Option<u64>) {
    (format!("{device:?}"), None)
}

/// The memory of the machine, where the system tells without further ado (Linux: `/proc/meminfo`,
/// and the limit of the control group where that is lower).
pub fn memory() -> Option<Memory> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let mut memory = meminfo(&text)?;
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    // Inside a container the machine's figures are not what a process may have.
    if let Some(limit) = number("/sys/fs/cgroup/memory.max") {
        let used = number("/sys/fs/cgroup/memory.current").unwrap_or(0);
        memory.total = memory.total.min(limit);
        memory.available = memory.available.min(limit.saturating_sub(used));
    }
    Some(memory)
}

/// The most memory that this process has held so far, mapped files included, in bytes (Linux:
/// `VmHWM`); `None` where the system does not tell.
pub fn peak_memory() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Reads `MemTotal` and `MemAvailable`, in kibibytes.
fn meminfo(text: &str) -> Option<Memory> {
    let of = |key: &str| {
        let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total: of("MemTotal")?, available: of("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cpu_is_always_there() {
        assert!(named("cpu").is_ok() && named("CPU:0").is_ok() && named("flex").is_ok());
        assert!(devices()[0].name == "cpu" && built_with()[0] == "cpu");
        assert!(named("cpu:7").unwrap_err().to_string().contains("not there"));
        assert!(named("cpu:x").unwrap_err().to_string().contains("cpu:0"));
        assert!(named("vulcan").unwrap_err().to_string().contains("vulkan"));
        for kind in KINDS.into_iter().filter(|k| !is_built(k)) {
            let said = named(kind).unwrap_err().to_string();
            assert!(said.contains(&format!("--features {kind}")), "{said}");
        }
    }

    #[test]
    fn memory_is_read_in_bytes() {
        let text = "MemTotal:       24000000 kB\nMemFree: 1 kB\nMemAvailable:   23000000 kB\n";
        let wanted = Memory { total: 24_000_000 * 1024, available: 23_000_000 * 1024 };
        assert_eq!(meminfo(text), Some(wanted));
        assert_eq!(meminfo("MemTotal: many kB"), None);
        if cfg!(target_os = "linux") {
            let memory = memory().unwrap();
            assert!(memory.available <= memory.total && memory.total > 1 << 28, "{memory:?}");
        }
    }
}
