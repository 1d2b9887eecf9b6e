"""The path tree against a model: a dict of paths that knows nothing of trees."""

from __future__ import annotations

import random
from typing import Any

import pytest

from copycat._core.layout import Status
from copycat.errors import ConflictError
from copycat.serializer import Serializer
from copycat.server.applier import Applier
from copycat.server.listening import Listening
from copycat.server.tree import Tree
from copycat.system import SYSTEM_RESOURCE, SystemOperation
from copycat.types import Mode

from .images import commands, pack, register, results_of, tick, unpack, unregister
from .test_applier import World

NAMES = ("a", "b", "é", "日本")
SESSION_S = 5.0


class Model:
    """Paths with what is known of them, in order of creation."""

    def __init__(self) -> None:
        self.paths: dict[str, tuple[int, int, int]] = {}  # version, owner, resource
        self.events: list[tuple[str, str]] = []

    def parents(self, path: str) -> list[str]:
        parts = path.split("/")[1:]
        return ["/" + "/".join(parts[:i]) for i in range(1, len(parts))]

    def refuses(self, path: str, owner: int | None) -> bool:
        """Whether it can not be created for ``owner``."""
        if path in self.paths:
            return owner is not None and self.paths[path][1] != owner
        return any(self.paths[each][1] for each in self.parents(path) if each in self.paths)

    def create(self, path: str, index: int, owner: int | None) -> bool:
        fresh = [each for each in [*self.parents(path), path] if each not in self.paths]
        for each in fresh:
            self.paths[each] = (index, (owner or 0) if each == path else 0, 0)
            self.events.append(("created", each))
        return bool(fresh)

    def open(self, path: str, index: int, owner: int | None) -> int:
        self.create(path, index, owner)
        version, whose, resource = self.paths[path]
        if not resource:
            self.paths[path] = (version, whose, index)
            self.events.append(("opened", path))
        return resource or index

    def below(self, path: str) -> list[str]:
        return [each for each in self.paths if each == path or each.startswith(path + "/")]

    def delete(self, path: str) -> bool:
        gone = self.below(path)
        for each in gone:
            del self.paths[each]
        # Children before their parents; among others any order of the model's is as good.
        self.events += [("deleted", each) for each in gone]
        return bool(gone)

    def end(self, session: int) -> None:
        for path in [path for path, (_, owner, _) in self.paths.items() if owner == session]:
            self.delete(path)

    def children(self, path: str) -> list[str]:
        prefix = path.rstrip("/") + "/"
        return [
            each[len(prefix) :]
            for each in self.paths
            if each.startswith(prefix) and "/" not in each[len(prefix) :]
        ]


class Life:
    """A state with a few sessions, its model, and a listener of some paths."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.world = World()
        self.model = Model()
        self.model.paths["/t"] = (3, 0, 3)
        self.sequences = {self.world.session: 1}
        self.heard: dict[str, list[tuple[str, str]]] = {}
        self.deep = ["/" + "/".join(parts) for parts in self._some_parts()]

    def _some_parts(self) -> list[list[str]]:
        return [self.chance.choices(NAMES, k=self.chance.randint(1, 4)) for _ in range(12)]

    def begin(self, number: int) -> int:
        self.world.apply(register(bytes([number]) * 16, timeout_ms=int(SESSION_S * 1000)))
        session = self.world.log.next_index - 1
        self.sequences[session] = 0
        return session

    def call(self, session: int, operation: int, *args: object) -> bytes:
        self.sequences[session] += 1
        run = commands(session, self.sequences[session], (0, operation, list(args)))
        self.world.apply(run)
        applied = self.world.applier.take()
        self.hear(applied.events)
        return results_of(applied.answers[-1])[0]

    def hear(self, events: list[tuple[int, int, int, bytes]]) -> None:
        for session, _, _, payload in events:
            if session == self.world.session:
                for resource, path, value in unpack(payload):
                    if resource == SYSTEM_RESOURCE:
                        self.heard[path].append(tuple(unpack(value)))

    def ask(self, operation: int, *args: object) -> Any:
        result = self.world.applier.system.query(operation, pack(list(args)))
        assert result[0] == Status.OK
        return unpack(result[1:])

    def listen(self, path: str) -> None:
        assert self.call(self.world.session, SystemOperation.LISTEN, 0, path)[0] == Status.OK
        self.heard[path] = []

    def step(self) -> None:
        chance, model, index = self.chance, self.model, self.world.log.next_index
        session = chance.choice(sorted(self.sequences))
        path = chance.choice(self.deep)
        kind = chance.random()
        if kind < 0.7:
            mode = chance.choice((Mode.PERSISTENT, Mode.EPHEMERAL))
            owner: int | None = session if mode is Mode.EPHEMERAL else 0
            if kind < 0.4:
                result = self.call(session, SystemOperation.CREATE, path, mode.value)
            else:
                wanted = chance.choice((None, mode.value))
                owner = None if wanted is None else owner
                result = self.call(session, SystemOperation.OPEN, path, "Tally", 1, [], wanted)
            if model.refuses(path, owner):
                assert result[0] == Status.CONFLICT
            elif kind < 0.4:
                assert unpack(result[1:]) == model.create(path, index, owner)
            else:
                assert unpack(result[1:])[0] == model.open(path, index, owner)
        elif kind < 0.85:
            version = chance.choice((None, 7, model.paths.get(path, (0,))[0]))
            result = self.call(session, SystemOperation.DELETE, path, version)
            if version is not None and model.paths.get(path, (0,))[0] != version:
                assert result[0] == Status.CONFLICT
            elif version == 0:
                assert result[0] == Status.CONFLICT, "there is nothing"
            else:
                assert unpack(result[1:]) == model.delete(path)
        elif kind < 0.95 and session != self.world.session:
            self.end(session)

    def end(self, session: int) -> None:
        """A session says goodbye or is not heard of any more."""
        if self.chance.random() < 0.5:
            self.world.apply(unregister(session))
        else:
            others = [each for each in self.sequences if each != session]
            for _ in range(3):
                for each in others:
                    self.keep(each)
                self.world.apply(tick(), seconds=SESSION_S / 2)
        self.hear(self.world.applier.take().events)
        del self.sequences[session]
        self.model.end(session)

    def keep(self, session: int) -> None:
        assert self.call(session, SystemOperation.UNLISTEN, 0, "/nothing")[0] == Status.OK

    def compare(self) -> None:
        model = self.model
        for path in [*self.deep, "/t", "/", *model.paths]:
            names, more = self.ask(SystemOperation.CHILDREN, path)
            assert names == model.children(path) and more == 0
            info = self.ask(SystemOperation.INFO, path)
            assert self.ask(SystemOperation.EXISTS, path) == (info is not None)
            if path == "/":
                continue
            known = model.paths.get(path)
            assert (None if info is None else (info[0], info[2], info[3])) == known
            assert info is None or info[5] == len(names)
        tree = self.world.applier.system._tree
        assert len(tree) == len(model.paths) + 1
        living = {place[2] for place in model.paths.values() if place[2]}
        assert {each.id for each in self.world.applier.executor.instances()} == living

    def restored(self) -> None:
        """Go on from a snapshot, which is the same as before."""
        image = self.world.applier.image()
        applier = Applier(self.world.applier.executor.machines, Serializer())
        applier.restore(image)
        assert applier.image() == image
        self.world.applier = applier


@pytest.mark.parametrize("seed", range(30))
def test_the_tree_is_what_its_commands_made_of_it(seed: int) -> None:
    """Paths, versions, owners, resources and children are the model's after every command, also
    across snapshots; a member that replays the log has the same state to the byte, and whoever
    listens to a path heard just what became of it and its children."""
    life = Life(seed)
    for path in dict.fromkeys([*life.chance.sample(life.deep, 3), "/", "/a"]):
        life.listen(path)
    for number in range(120):
        if number % 20 == 0:
            life.begin(number + 1)
        life.step()
        life.compare()
        if life.chance.random() < 0.05:
            life.restored()
    fresh = life.world.fresh()
    for image in life.world.images:
        fresh.apply(image)
    assert fresh.image() == life.world.applier.image()
    for path, heard in life.heard.items():
        near = {path, *(each for _, each in life.model.events if parent(each) == path)}
        expected = [event for event in life.model.events if event[1] in near]
        assert sorted(heard) == sorted(expected)
        for each in near:
            mine = [what for what, which in heard if which == each]
            assert mine == [what for what, which in expected if which == each]


def parent(path: str) -> str:
    """The path above."""
    return path.rpartition("/")[0] or "/"


def test_the_root_is_emptied_and_stays() -> None:
    """Deleting the root takes everything beneath it, and whatever lived there itself."""
    tree = Tree()
    tree.create("/a/b", 3, 0, 7)
    tree.put("/", 5)
    gone = tree.delete("/")
    assert [path for path, _ in gone] == ["/a/b", "/a", "/"]
    assert "/" in tree and len(tree) == 1 and tree.owned(7) == [] and tree.resource("/") == 0


def test_deleting_the_root_tells_of_all_that_was_beneath_it() -> None:
    """And not of the root, which stays."""
    life = Life(0)
    for path in ("/", "/t", "/a"):
        life.listen(path)
    life.call(life.world.session, SystemOperation.CREATE, "/a/b")
    assert unpack(life.call(life.world.session, SystemOperation.DELETE, "/")[1:]) is True
    assert life.heard == {
        "/": [("created", "/a"), ("deleted", "/a"), ("deleted", "/t")],
        "/t": [("deleted", "/t")],
        "/a": [("created", "/a"), ("created", "/a/b"), ("deleted", "/a/b"), ("deleted", "/a")],
    }
    assert life.ask(SystemOperation.CHILDREN, "/") == [[], 0]


def test_what_a_deleted_resource_had_scheduled_is_forgotten() -> None:
    """No timer of it stays behind, however far off; those of others do, also after a restore."""
    world = World()
    call = ("/u", "Tally", 1, ["later"])
    life = Life(0)
    life.world = world
    life.sequences = {world.session: 1}
    other, (later,) = unpack(life.call(world.session, SystemOperation.OPEN, *call)[1:])
    world.sequence = life.sequences[world.session]
    for resource in (world.resource, other, world.resource):
        world.sequence += 1
        world.apply(commands(world.session, world.sequence, (resource, later, [1])))
    applier = world.fresh()
    applier.restore(world.applier.image())
    world.applier = applier
    world.sequence += 1
    delete = (0, SystemOperation.DELETE, ["/t"])
    world.apply(commands(world.session, world.sequence, delete))
    assert [timer[2] for timer in applier.timers] == [other]
    world.apply(tick(), seconds=2.0)
    assert not applier.timers and not applier._timers_of


def test_a_refused_path_leaves_no_part_of_it_behind() -> None:
    """What cannot be created changes nothing, not even its ancestors."""
    tree = Tree()
    tree.create("/a/e", 3, 0, 7)
    before = tree.image()
    for path, owner in (("/a/e/x/y", 0), ("/a/e", 0), ("/a", 7), ("/a/e/x", 7)):
        with pytest.raises(ConflictError):
            tree.create(path, 9, 0, owner)
    assert tree.image() == before and len(tree) == 3


def test_a_deep_and_a_wide_tree_are_walked_without_recursion() -> None:
    """A subtree is deleted child before parent, whatever its shape."""
    tree = Tree()
    tree.create("/x" * 64, 1, 0)
    for number in range(200):
        tree.create(f"/x/{number}", 2 + number, 0)
    gone = [path for path, _ in tree.delete("/x")]
    assert len(gone) == 264 and gone[-1] == "/x"
    assert all(gone.index(path) < gone.index(parent(path)) for path in gone[:-1])


def test_listeners_by_resource_and_by_session_agree() -> None:
    """Whatever comes and goes, both indexes say the same, and so does the snapshot."""
    chance = random.Random(5)
    listening, model = Listening(), dict[tuple[int, str, int], None]()
    for _ in range(2000):
        resource, event, session = chance.randrange(4), chance.choice("ab"), chance.randrange(5)
        kind = chance.random()
        if kind < 0.6:
            listening.add(resource, event, session)
            model[resource, event, session] = None
        elif kind < 0.9:
            listening.drop(resource, event, session)
            model.pop((resource, event, session), None)
        elif kind < 0.95:
            listening.forget(session)
            model = {key: None for key in model if key[2] != session}
        else:
            told = listening.delete(resource)
            assert sorted(told) == sorted({key[2] for key in model if key[0] == resource})
            model = {key: None for key in model if key[0] != resource}
        for which in range(4):
            assert listening.knows(which) == any(key[0] == which for key in model)
        assert len(listening) == len(model)
        found = listening.sessions(resource, event)
        assert list(found) == [key[2] for key in model if key[:2] == (resource, event)]
        assert listening.has(resource, event, session) == ((resource, event, session) in model)
        assert listening.count(session) == sum(key[2] == session for key in model)
    again = Listening(unpack(pack(listening.image())))
    assert again.image() == listening.image() and len(again) == len(listening)
