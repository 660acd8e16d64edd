"""What a search distinguishes from a defect of the program."""


class CandidateError(Exception):
    """A candidate cannot be evaluated; the search records why and goes on with the next one."""
