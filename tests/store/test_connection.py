"""What goes wrong with a connection is one clear line, and never holds a password."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from vscrapy_magic.errors import (
    ConfigError,
    StoreAuthError,
    StoreError,
    StoreReadOnlyError,
    StoreTooOldError,
    StoreUnreachableError,
)
from vscrapy_magic.store.connection import Store
from vscrapy_magic.store.scripts import Script, load_script


@contextmanager
def old_server() -> Iterator[str]:
    """Something that answers every command of a client as Redis 5 would."""
    info = b"# Server\r\nredis_version:5.0.14\r\n"
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            while data := connection.recv(65536):
                for command in data.split(b"*")[1:]:
                    if b"INFO" in command:
                        connection.sendall(b"$%d\r\n%s\r\n" % (len(info), info))
                    elif b"PING" in command:
                        connection.sendall(b"+PONG\r\n")
                    else:
                        connection.sendall(b"+OK\r\n")

    thread = threading.Thread(target=serve, name="old-server", daemon=True)
    thread.start()
    try:
        yield f"redis://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.close()
        thread.join(5)


def test_a_server_that_is_too_old() -> None:
    with (
        old_server() as url,
        pytest.raises(StoreTooOldError, match=r"Redis 5\.0\.14; 6\.2 or newer"),
    ):
        Store.connect(url)


def test_nobody_answers() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(StoreUnreachableError, match="does not answer") as error:
        Store.connect(f"redis://user:secret@127.0.0.1:{port}/0", timeout_s=1)
    assert "secret" not in str(error.value)


def test_a_wrong_password(store: Store) -> None:
    store.client.config_set("requirepass", "right")
    try:
        with pytest.raises(StoreAuthError, match="user or the password") as error:
            Store.connect(store.url.replace("unix://", "unix://:wrong@"))
        assert "wrong" not in str(error.value)
        with pytest.raises(StoreAuthError):
            Store.connect(store.url)
        Store.connect(store.url + "?password=right").close()
    finally:
        store.client.config_set("requirepass", "")


def test_a_full_server(store: Store) -> None:
    store.client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StoreReadOnlyError, match="no writes"), store.errors_wrapped():
            store.client.set("vscrapy:judged", "1")
    finally:
        store.client.config_set("maxmemory", 0)


def test_an_address_that_is_none() -> None:
    with pytest.raises(ConfigError, match="redis://"):
        Store.connect("localhost:6379")


def test_a_server_that_forgot_a_script_gets_it_again(store: Store) -> None:
    script = Script("one", "return 1", "e0e1f9fabfc9d4800c877a703b823ac0578ff8db")
    store.client.script_flush()
    assert [store.call(script, ()), store.call(script, ())] == [1, 1]


def test_every_script_is_complete() -> None:
    for name in ("step", "join", "renew", "leave", "create", "move", "ack", "sweep", "beat"):
        assert "--!include" not in load_script(name).source


def test_a_wake_up_ends_a_wait(store: Store) -> None:
    assert store.pop_wake("vscrapy:wake:w", 0.01) is False
    waiter = threading.Timer(0.05, lambda: store.client.lpush("vscrapy:wake:w", "1"))
    waiter.start()
    assert store.pop_wake("vscrapy:wake:w", 10) is True
    waiter.join()


def test_a_wait_whose_socket_is_taken_away_before_it_reads_is_an_error_of_ours(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without_socket(_: object, timeout: float = 0) -> bool:
        if not timeout:  # the pool asks so before it gives a connection out
            return False
        raise TypeError("argument must be an int, or have a fileno() method.")

    monkeypatch.setattr("redis.connection.AbstractConnection.can_read", without_socket)
    with pytest.raises(StoreError, match="has been closed"):
        store.pop_wake("vscrapy:wake:w", 1.0)
