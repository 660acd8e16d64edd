"""The self-supervised tasks, one file a family. They know no weights."""
