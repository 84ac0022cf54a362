//! An image registry on loopback that holds one image under any name with the tag `1`, and knows no other tag.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
};

use serde_json::{Value, json};
use tempfile::TempDir;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Answers until the test process ends.
#[derive(Debug)]
pub struct Registry {
    addr: SocketAddr,
}

#[derive(Debug)]
struct Content {
    /// Blobs by their digest.
    folder: TempDir,
    manifest: String,
    digest: String,
}

impl Registry {
    /// Holding `image`, which the machine's engine has.
    ///
    /// # Panics
    /// It has it not, or loopback has no free port.
    pub fn of(image: &str) -> Self {
        let content = Arc::new(content(image));
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
        let addr = listener.local_addr().expect("a bound listener has an address");
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let content = Arc::clone(&content);
                // Whoever breaks off is gone: nothing to tell anybody.
                std::thread::spawn(move || serve(stream, &content));
            }
        });
        Self { addr }
    }

    /// The name of its image as `name`, for an engine of this machine.
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}:1", self.addr)
    }

    /// A name it has nothing under.
    pub fn missing(&self) -> String {
        format!("{}/missing:2", self.addr)
    }
}

fn serve(mut stream: TcpStream, content: &Content) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut words = request.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let last = path.rsplit('/').next().unwrap_or_default();
    let (status, kind, digest, body) = if path == "/v2/" {
        ("200 OK", "application/json", None, b"{}".to_vec())
    } else if path.contains("/manifests/") && (last == "1" || last == content.digest) {
        ("200 OK", MANIFEST, Some(content.digest.as_str()), content.manifest.clone().into_bytes())
    } else if let Ok(blob) = fs::read(content.folder.path().join(last))
        && path.contains("/blobs/")
    {
        ("200 OK", "application/octet-stream", Some(last), blob)
    } else {
        let none = json!({"errors": [{"code": "MANIFEST_UNKNOWN", "message": "manifest unknown"}]});
        ("404 Not Found", "application/json", None, none.to_string().into_bytes())
    };
    let digest = digest.map(|digest| format!("docker-content-digest: {digest}\r\n"));
    let head = format!(
        "HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n{}\
         docker-distribution-api-version: registry/2.0\r\nconnection: close\r\n\r\n",
        body.len(),
        digest.unwrap_or_default()
    );
    stream.write_all(head.as_bytes())?;
    if method == "GET" {
        stream.write_all(&body)?;
    }
    Ok(())
}

fn content(image: &str) -> Content {
    let folder = tempfile::tempdir().expect("a temporary folder can be made");
    let saved = folder.path().join("saved");
    fs::create_dir(&saved).expect("a folder can be made");
    let mut save = Command::new("docker");
    let mut save = save.args(["save", image]).stdout(Stdio::piped()).spawn().expect("docker runs");
    let archive = save.stdout.take().expect("it was asked for");
    let mut extract = Command::new("tar");
    let extracted = extract.args(["--extract", "--directory"]).arg(&saved).stdin(archive).status();
    assert!(extracted.is_ok_and(|status| status.success()), "tar is installed");
    assert!(save.wait().is_ok_and(|status| status.success()), "image {image} is there");

    let index = fs::read(saved.join("manifest.json")).expect("an archive has a manifest");
    let index: Value = serde_json::from_slice(&index).expect("it is JSON");
    let blob = |name: &Value, kind: &str| {
        let path = saved.join(name.as_str().expect("a name is a text"));
        let size = fs::metadata(&path).expect("what is named is there").len();
        let digest = sha256(&path);
        fs::rename(&path, folder.path().join(&digest)).expect("a file can be moved");
        json!({"mediaType": kind, "size": size, "digest": digest})
    };
    let layers = index[0]["Layers"].as_array().expect("layers are a list");
    let layer = "application/vnd.docker.image.rootfs.diff.tar.gzip";
    let layers: Vec<_> = layers.iter().map(|name| blob(name, layer)).collect();
    let config = blob(&index[0]["Config"], "application/vnd.docker.container.image.v1+json");
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers
    });
    let manifest = manifest.to_string();
    let path = folder.path().join("manifest");
    fs::write(&path, &manifest).expect("a file can be written");
    let digest = sha256(&path);
    Content { folder, manifest, digest }
}

/// `sha256:…` of a file.
fn sha256(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().expect("sha256sum is installed");
    let text = String::from_utf8_lossy(&output.stdout);
    format!("sha256:{}", text.split_whitespace().next().expect("it prints a digest"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{self, docker};

    #[test]
    fn an_engine_pulls_from_it() {
        let registry = Registry::of(image::busybox());
        let name = registry.image("one");
        docker(&["pull", "--quiet", &name], &[]);
        let run = ["run", "--rm", "--label", image::LABEL, "--network", "none", &name, "id", "-u"];
        let said = docker(&run, &[]);
        image::remove(&name);
        assert_eq!(said, "0");
    }
}
