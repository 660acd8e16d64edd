"""What the BUILD files share.

Packages of PyPI are no targets: programs and tests run with the Python of the environment that
`make setup` installs, which has them.
"""

load("@rules_python//python:defs.bzl", "py_binary", "py_test")

def programs(names, deps, data = []):
    """One py_binary for each module with a main.

    Args:
      names: of the modules, without .py.
      deps: of all of them: the library that holds the modules.
      data: files that they read.
    """
    for name in names:
        py_binary(name = name, srcs = [name + ".py"], deps = deps, data = data)

def pytest_tests(srcs, deps = [], data = [], soak = False):
    """One py_test, named as the file, for each file of tests.

    Args:
      srcs: files of tests, as of glob(["test_*.py"]).
      deps: libraries that any of them imports or starts; //tests:conftest comes with it.
      data: files that any of them reads, but for the gin files, which all tests have.
      soak: long tests, which run only when they are named.
    """
    for src in srcs:
        py_test(
            name = src[:-len(".py")],
            srcs = [src, "//tests:run_pytest.py"],
            main = "//tests:run_pytest.py",
            args = (["-m", "soak"] if soak else []) + ["$(location %s)" % src],
            deps = deps + ["//tests:conftest"],
            data = data + ["//:pytest.ini", "//gin"],
            size = "large",
            timeout = "eternal",  # a busy machine is slow; a test that hangs has its own limit
            tags = ["manual"] if soak else [],
        )
