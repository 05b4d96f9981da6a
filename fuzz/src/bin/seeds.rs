//! Writes the inputs that fuzzing begins with to `corpus/TARGET/`, one file each.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let seeds = ottla_fuzz::protocol::seeds(&home.join("../protocol/testdata"))?;
    for (number, (target, bytes)) in seeds.iter().enumerate() {
        let folder = home.join("corpus").join(target);
        std::fs::create_dir_all(&folder)?;
        std::fs::write(folder.join(format!("seed-{number:04}")), bytes)?;
    }
    println!("{} seeds", seeds.len());
    Ok(())
}
