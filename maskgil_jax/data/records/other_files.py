"""Files and folders beside images: what systems leave behind, and what somebody may miss."""

import os

# Folders and files that operating systems, NAS and programs make, in lower case. Those whose names
# begin with a dot (.git, .ipynb_checkpoints, .Trash-1000, .DS_Store) need no naming.
OF_SYSTEMS = {
    "__macosx",
    "__pycache__",
    "network trash folder",
    "temporary items",
    "icon\r",
    "$recycle.bin",
    "recycler",
    "system volume information",
    "thumbs.db",
    "ehthumbs.db",
    "desktop.ini",
    "lost+found",
    "aquota.user",
    "aquota.group",
    "@eadir",
    "@tmp",
    "@recycle",
    "@recently-snapshot",
    "#recycle",
    "#snapshot",
}
APPLE_DOUBLE = "._"  # begins the names of files in which macOS keeps attributes of others

# Of files that hold no images, captions or labels.
WITHOUT_DATA = {
    *(".md", ".rst", ".pdf", ".htm", ".html", ".url", ".lnk", ".css", ".js"),
    *(".py", ".pyc", ".ipynb", ".sh", ".bat", ".m", ".log", ".out", ".err"),
    *(".cfg", ".ini", ".toml", ".yaml", ".yml", ".db", ".lock", ".tmp", ".bak", ".swp"),
    *(".md5", ".sha1", ".sha256", ".torrent"),
}
DOCUMENTS = {
    *("readme", "license", "licence", "copying", "copyright", "notice", "authors", "citation"),
    *("changelog", "changes", "attribution", "makefile", "requirements", "checksums"),
}
# Of Hugging Face's ImageFolder; formats/metadata.py reads the first two, where a source begins.
METADATA = {"metadata.csv", "metadata.jsonl", "metadata.parquet"}
LONGEST_SUFFIX = 12  # of a longer one, the dot is part of the name


def is_of_system(name: str) -> bool:
    """Whether a folder, or a file that is no image, is hidden or of the system."""
    return name.startswith(".") or name.lower() in OF_SYSTEMS


def reason(name: str) -> tuple[str, bool]:
    """Why a file that is no image is not used, and whether it looks like data.

    Args:
      name: of the file, without folders.
    """
    stem, suffix = os.path.splitext(name.lower())
    if name.startswith(APPLE_DOUBLE):
        return "AppleDouble file", False
    if is_of_system(name):
        return "hidden file, or one of the system", False
    if name.lower().removesuffix(".gz") in METADATA:
        return "metadata, which is not read", True
    if stem in DOCUMENTS:
        return "document", False
    if not suffix or len(suffix) > LONGEST_SUFFIX or not suffix[1:].isalnum():
        return "no known suffix", True
    if suffix[1:].isdigit():
        return "a number as suffix", True
    return f"suffix {suffix}", suffix not in WITHOUT_DATA
