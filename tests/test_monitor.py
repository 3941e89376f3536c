"""TrainingMonitor: sees what the run logged, changes nothing in it, and steers it from here and from another process."""
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from torch import nn

from pixcl_nb.training.loop import History, pretrain
from pixcl_nb.training.settings import TrainConfig, TrainingStopped
from pixcl_nb.widgets.monitor import LogTail, PixelColours, RunReader, TrainingMonitor, control, follow_control, load_pictures, process_birth, process_facts, process_is_gone, save_pictures

from browser import open_widget   # noqa: F401  a fixture


class Encoder(nn.Module):
    channels, stride = 8, 4
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8))
    def forward(self, images): return self.net(images)


class Toy(nn.Module):
    "The smallest thing pretrain trains; batch normalisation, so that a careless look would change the run."
    def __init__(self, seconds=0.):
        super().__init__()
        torch.manual_seed(0)
        self.encoder, self.seconds = Encoder(), seconds
    def loss(self, images, masks=None, generator=None):
        time.sleep(self.seconds)
        rows = self.encoder(images.float() / 255 + .1 * torch.rand(images.shape, generator=generator)).mean((2, 3))
        return {"loss": (rows - 1).square().mean(), "spread": rows.std(0).mean()}
    def after_step(self): pass


DATA = [(torch.randint(0, 255, (3, 16, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(i)), torch.zeros(16, 24, dtype=torch.long)) for i in range(8)]
IMAGES = torch.stack([image for image, _ in DATA[:2]])
CONFIG = TrainConfig(steps=30, batch_size=4, device="cpu", progress=False, checkpoint_every=10)


def numbers(monitor, name):
    table = np.frombuffer(monitor.front_state()["rows"]).reshape(-1, len(monitor.columns))
    return table[:, monitor.columns.index(name)]


def messages(monitor):
    "Record what would travel, instead of a comm."
    sent = []
    monitor.send = lambda content, buffers=None: sent.append((content, buffers))
    monitor.send_state = lambda key=None: sent.append(({"kind": "state", "keys": key}, None))
    return sent


def test_watching_changes_no_bit_of_the_run():
    alone, watched = Toy(), Toy()
    a = pretrain(alone, DATA, CONFIG)
    b = pretrain(watched, DATA, CONFIG, on_step=TrainingMonitor(images=IMAGES, every=3).on_step)
    assert a["loss"] == b["loss"]
    for name, value in alone.state_dict().items(): assert torch.equal(value, watched.state_dict()[name]), name
    assert all(module.training for module in watched.modules())


def test_monitor_holds_the_rows_that_pretrain_logged():
    monitor = TrainingMonitor(config=CONFIG, images=IMAGES, every=10)
    history = pretrain(Toy(), DATA, CONFIG, on_step=monitor.on_step)
    assert monitor.history.rows == history.rows
    assert monitor.columns[0] == "step" and set(monitor.columns) == {"step", "lr", "images_per_second", "loss", "spread"}
    assert numbers(monitor, "loss").tolist() == history["loss"]
    assert monitor.status["state"] == "finished" and monitor.status["step"] == 29 and monitor.status["total"] == 30 and monitor.status["rate"] > 0
    assert list(monitor.shots) == [0, 10, 20] and monitor.picture_shape == [2, 4, 6]


def test_only_new_rows_travel_and_together_they_are_the_table(monkeypatch):
    monitor = TrainingMonitor()
    sent = messages(monitor)
    for step in range(300):
        monitor._last_sent = 0                                              # no throttling: a message a step
        monitor.on_step(step, {"step": step, "loss": float(step)}, None)
    parts = [(content, buffers) for content, buffers in sent if content["kind"] == "rows"]
    table, have = [], 0
    for content, buffers in parts:
        assert content["start"] == have
        rows = np.frombuffer(buffers[0]).reshape(-1, 2)
        table, have = [*table, *rows.tolist()], have + len(rows)
    assert table == [[float(step), float(step)] for step in range(300)]
    whole = [content for content, _ in sent if content["kind"] == "state" and "rows" in content["keys"]]
    assert len(whole) <= 10                                            # at 1, 2, 4, … 256 rows


def test_many_steps_a_second_make_few_messages():
    monitor = TrainingMonitor()
    sent = messages(monitor)
    for step in range(2000): monitor.on_step(step, {"loss": 1.}, None)
    assert len(sent) < 100


def test_a_page_that_missed_rows_gets_the_table():
    monitor = TrainingMonitor()
    for step in range(5): monitor._last_sent = 0; monitor.on_step(step, {"loss": 1. * step}, None)
    sent = messages(monitor)
    monitor._on_message(None, {"kind": "rows", "have": 5}, [])
    assert not sent
    monitor._on_message(None, {"kind": "rows", "have": 2}, [])
    assert sent[0][0]["kind"] == "state" and "rows" in sent[0][0]["keys"]


def test_a_term_that_comes_later_gets_a_column_of_its_own():
    monitor = TrainingMonitor()
    for step in range(4): monitor._last_sent = 0; monitor.on_step(step, {"loss": 1., **({"dense": 2.} if step > 1 else {})}, None)
    assert np.isnan(numbers(monitor, "dense")[:2]).all() and numbers(monitor, "dense")[2:].tolist() == [2., 2.]


def test_a_run_that_goes_back_replaces_its_rows():
    monitor = TrainingMonitor()
    for step in range(6): monitor.on_step(step, {"loss": 1.}, None)
    monitor._live = False                                              # what .run does before it starts
    for step in range(3, 5): monitor.on_step(step, {"loss": 2.}, None)
    assert monitor.history["loss"] == [1., 1., 1., 2., 2.]


def test_run_trains_in_a_thread_and_pause_holds_it():
    monitor = TrainingMonitor(images=IMAGES, every=5)
    monitor.run(Toy(.02), DATA, TrainConfig(steps=400, batch_size=4, device="cpu", collapse_below=0))
    while len(monitor.table) < 3: time.sleep(.01)
    monitor.pause()
    while monitor.status["state"] != "paused": time.sleep(.01)
    held = len(monitor.table)
    time.sleep(.5)
    assert len(monitor.table) == held
    with pytest.raises(RuntimeError, match="still going"): monitor.run(Toy(), DATA, CONFIG)
    with pytest.raises(TimeoutError, match="step"): monitor.wait(.05)
    monitor.resume()
    while len(monitor.table) < held + 3: time.sleep(.01)
    monitor._on_message(None, {"kind": "command", "command": "stop"}, [])     # as the browser's button does
    history = monitor.wait(30)
    assert history.stopped_early and monitor.status["state"] == "stopped" and held + 3 <= len(history) < 400


def test_a_failed_run_says_why():
    class Bad(Toy):
        def loss(self, images, **keywords): return {"loss": super().loss(images, **keywords)["loss"] * float("nan")}
    monitor = TrainingMonitor()
    monitor.run(Bad(), DATA, CONFIG)
    with pytest.raises(TrainingStopped, match="nan"): monitor.wait(30)
    assert monitor.status["state"] == "failed" and "nan" in monitor.status["message"]


def test_a_picture_that_cannot_be_made_ends_no_run():
    monitor = TrainingMonitor(images=IMAGES, every=1)
    class NoEncoder: encoder = None
    assert monitor.on_step(0, {"loss": 1.}, NoEncoder) is None
    assert "No more pictures" in monitor._message


def test_ctrl_c_during_a_pause_reaches_pretrain(tmp_path):
    monitor = TrainingMonitor()
    monitor.pause()
    before = signal.getsignal(signal.SIGINT)                       # SIG_IGN where the tests run in the background of a script
    def paused_then_interrupted(*arguments):                       # the timer starts where the pause does, however long the set-up took
        threading.Timer(.6, os.kill, (os.getpid(), signal.SIGINT)).start()
        return monitor.on_step(*arguments)
    with pytest.raises(KeyboardInterrupt): pretrain(Toy(), DATA, CONFIG, run_dir=tmp_path, on_step=paused_then_interrupted)
    assert len(list(tmp_path.glob("step-*.pt"))) == 1 and signal.getsignal(signal.SIGINT) is before


def test_log_tail_takes_whole_lines_and_notices_a_new_file(tmp_path):
    path = tmp_path / "log.jsonl"
    tail = LogTail(path)
    assert tail.read() == ([], False)
    path.write_text('{"step": 0, "loss": 1.0}\n{"step": 1, "lo')
    assert tail.read() == ([{"step": 0, "loss": 1.0}], False) and tail.read() == ([], False)
    with open(path, "a") as file: file.write('ss": 0.5}\n')
    assert tail.read() == ([{"step": 1, "loss": .5}], False)
    path.write_text('{"step": 0, "loss": 3.0}\n')
    assert tail.read() == ([{"step": 0, "loss": 3.}], True)


def test_a_finished_run_opens_from_its_folder(tmp_path):
    history = pretrain(Toy(), DATA, CONFIG, run_dir=tmp_path)
    monitor = TrainingMonitor(tmp_path)
    assert monitor.history.rows == history.rows and monitor.status["state"] == "finished" and not monitor.status["controls"]
    with pytest.raises(RuntimeError, match="follow_control"): monitor.stop()
    monitor.close()


def test_the_hook_lets_a_folder_be_followed_between_checkpoints(tmp_path):
    seen = []
    hook = follow_control(tmp_path, IMAGES, every=5)
    def both(step, terms, method):
        hook(step, terms, method)
        if step == 7:
            reader = RunReader(tmp_path)
            seen.append(reader.read())
    config = TrainConfig(steps=9, batch_size=4, device="cpu", progress=False)
    history = pretrain(Toy(), DATA, config, run_dir=tmp_path, on_step=both)
    assert [row["step"] for row in seen[0]["rows"]] == list(range(8)) and [step for step, _ in seen[0]["pictures"]] == [0, 5]
    assert seen[0]["sources"].shape == (2, 16, 24, 3)
    after = RunReader(tmp_path).read()
    assert after["rows"] == history.rows                              # log and live agree, each row once


def test_a_resumed_run_drops_what_was_written_after_its_checkpoint(tmp_path):
    hook = follow_control(tmp_path, IMAGES, every=1)
    for step in range(6): hook(step, {"loss": float(step)}, Toy())
    again = follow_control(tmp_path, IMAGES, every=1)
    again(3, {"loss": 30.}, Toy())
    rows = LogTail(tmp_path / "live.jsonl").read()[0]
    assert [row["loss"] for row in rows] == [0., 1., 2., 30.]
    assert sorted(step for step, _ in RunReader(tmp_path).read()["pictures"]) == [0, 1, 2, 3]


SCRIPT = """
import sys; sys.path.insert(0, {tests!r})
from test_monitor import *
history = pretrain(Toy(.02), DATA, TrainConfig(steps=3000, batch_size=4, device="cpu", progress=False, collapse_below=0), run_dir={folder!r}, on_step=follow_control({folder!r}, IMAGES, every=5))
print("stopped" if history.stopped_early else "ran through", len(history))
"""


def test_a_run_in_another_process_is_paused_resumed_and_stopped(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT.format(tests=os.path.dirname(__file__), folder=str(tmp_path))], stdout=subprocess.PIPE, text=True)
    def until(condition, what):
        end = time.time() + 60
        while not condition():
            assert time.time() < end and process.poll() is None, what
            time.sleep(.05)
    try:
        until(lambda: (tmp_path / "status.json").exists(), "the run never began")
        monitor = TrainingMonitor(tmp_path, poll=.1)
        until(lambda: len(monitor.table) > 5 and len(monitor.shots) > 1, "no rows came")
        monitor.pause()
        until(lambda: monitor.status["state"] == "paused", "it was not paused")
        time.sleep(.3)
        held = len(monitor.table)
        time.sleep(.6)
        assert len(monitor.table) == held and monitor.status["controls"]
        monitor.resume()
        until(lambda: len(monitor.table) > held + 3, "it did not go on")
        monitor.stop()
        assert process.wait(30) == 0
        said = process.stdout.read().split()
        assert said[0] == "stopped" and int(said[1]) < 3000 and not (tmp_path / "control.json").exists()
        while monitor.status["state"] != "stopped": time.sleep(.05)
        assert len(monitor.table) == int(said[1])
        monitor.close()
    finally:
        if process.poll() is None: process.kill()


def test_commands_of_yesterday_do_not_stop_the_run_of_today(tmp_path):
    control(tmp_path, "stop")
    assert follow_control(tmp_path)(0, {"loss": 1.}, None) is None


def test_errors_name_the_argument(tmp_path):
    with pytest.raises(ValueError, match="did you mean 'pause'"): control(tmp_path, "paus")
    with pytest.raises(ValueError, match="run_dir: there is no folder"): control(tmp_path / "no", "stop")
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="run_dir: .* is a file"): TrainingMonitor(tmp_path / "file")
    with pytest.raises(TypeError, match="source"): TrainingMonitor(3)
    with pytest.raises(ValueError, match="images"): TrainingMonitor(images=IMAGES.float())
    with pytest.raises(ValueError, match="images"): TrainingMonitor(images=IMAGES.repeat(5, 1, 1, 1))
    with pytest.raises(RuntimeError, match="run first"): TrainingMonitor().wait()


def test_colours_hold_still_under_signs_rotations_and_swaps():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, 6, 8, 8, generator=generator) * torch.tensor([5., 5., 5., 1, 1, 1]).view(6, 1, 1)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=generator))[0]
    colours = PixelColours(IMAGES)
    first = colours.colour(features)
    for other in (-features, features.flip(1), torch.einsum("bchw,cd->bdhw", features, turn)):
        assert np.abs(colours.colour(other).astype(int) - first).max() <= 2
    assert (PixelColours(IMAGES).colour(torch.ones(1, 4, 3, 3)) == 128).all()


def test_pictures_come_back_from_their_files(tmp_path):
    pictures = np.random.default_rng(0).integers(0, 255, (3, 5, 7, 3), dtype=np.uint8)
    assert (load_pictures(save_pictures(tmp_path, 4, pictures)) == pictures).all()


def test_snapshots_are_thinned_not_unbounded():
    monitor = TrainingMonitor()
    for step in range(400): monitor._add_picture(step, np.zeros((1, 2, 2, 3), np.uint8))
    assert 60 <= len(monitor.shots) <= 121 and list(monitor.shots)[0] == 0 and list(monitor.shots)[-1] == 399


# ---------------------------------------------------------------- what is left of a run
ROWS = [json.dumps({"step": step, "loss": 1 / (step + 1)}) for step in range(50)]


def run_folder(path, rows=ROWS, **status):
    "A folder as a run leaves it; `status` is what its hook wrote last."
    path.mkdir(exist_ok=True)
    (path / "config.json").write_text(json.dumps({"config": {"steps": 100, "batch_size": 8}}))
    (path / "log.jsonl").write_bytes(b"".join((row.encode() if isinstance(row, str) else row) + b"\n" for row in rows))
    if status: (path / "status.json").write_text(json.dumps(status))
    return path


@pytest.fixture(scope="module")
def dead():
    "What a process wrote down of itself before it was killed."
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    facts = {**process_facts(), "pid": process.pid, "born": process_birth(process.pid)[1]}
    assert process_is_gone(facts) is False
    process.send_signal(signal.SIGKILL)
    process.wait()
    return facts


@pytest.mark.parametrize("state", ["running", "paused"])
@pytest.mark.parametrize("age", [1, 30, 300, 90_000])
def test_a_killed_run_of_this_machine_is_gone_at_once(tmp_path, dead, state, age):
    now = time.time()
    monitor = TrainingMonitor(run_folder(tmp_path, state=state, step=49, time=now - age, started=now - age - 60, world=1, **dead))
    assert monitor.status["state"] == "gone" and not monitor.status["controls"]
    assert "No sign of life since" in monitor.status["message"] and f"process {dead['pid']} is gone" in monitor.status["message"]
    for command in (monitor.pause, monitor.resume, monitor.stop):
        with pytest.raises(RuntimeError, match="nobody would hear it.*gone"): command()
    assert not (tmp_path / "control.json").exists()
    monitor._on_message(None, {"kind": "command", "command": "stop"}, [])              # a click says it on the page
    assert "nobody would hear it" in monitor.status["message"]
    monitor.close()


def test_a_zombie_and_a_number_that_was_given_away_again_are_gone(dead):
    child = os.fork()
    if child == 0: os._exit(0)
    os.waitid(os.P_PID, child, os.WEXITED | os.WNOWAIT)                                 # ended, and still to be waited for
    try: assert process_is_gone({**process_facts(), "pid": child, "born": process_birth(child)[1]}) is True
    finally: os.waitpid(child, 0)
    assert process_is_gone({**process_facts(), "born": (process_birth(os.getpid())[1] or 2) - 1}) is True
    assert process_is_gone(process_facts()) is False
    for unknown in ({}, {"pid": "x"}, {**dead, "host": "node17"}, {**dead, "pid": None}, {**dead, "pid": -1}, {**dead, "pid": 2**70}, {**dead, "processes": "pid:[1]"}):
        assert process_is_gone({"host": dead["host"], **unknown}) is None


@pytest.mark.parametrize("age, expected", [(10, "running"), (60, "running"), (200, "silent"), (90_000, "silent")])
def test_of_another_machine_only_the_silence_is_known(tmp_path, dead, age, expected):
    elsewhere = {**dead, "host": "node17"}
    monitor = TrainingMonitor(run_folder(tmp_path, state="running", time=time.time() - age, started=time.time() - age - 60, **elsewhere))
    assert monitor.status["state"] == expected
    assert ("node17" in monitor.status["message"]) == (expected == "silent")
    monitor.close()


def test_clocks_that_differ_do_not_kill_a_run(tmp_path, dead):
    "Another machine's clock is ten minutes late: silence is measured by ours, from the moment we saw the last sign arrive."
    elsewhere = {**dead, "host": "node17", "state": "running"}
    monitor = TrainingMonitor(run_folder(tmp_path, **elsewhere, time=time.time() - 600), poll=1000)
    assert monitor.status["state"] == "silent"
    run_folder(tmp_path, **elsewhere, time=time.time() - 599)
    monitor._update()
    assert monitor._state == "running"
    monitor.close()


def test_slow_steps_are_no_silence(tmp_path, dead):
    slow = [json.dumps({"step": step, "loss": 1., "images_per_second": .1}) for step in range(3)]      # 80 seconds a step
    monitor = TrainingMonitor(run_folder(tmp_path, slow, state="running", time=time.time() - 600, **{**dead, "host": "node17"}))
    assert monitor.status["state"] == "running"
    monitor.close()


def test_a_run_that_only_logs_is_silent_when_its_log_is_old(tmp_path):
    run_folder(tmp_path)
    monitor = TrainingMonitor(tmp_path)
    assert monitor.status["state"] == "following"
    monitor.close()
    os.utime(tmp_path / "log.jsonl", (time.time() - 900,) * 2)
    monitor = TrainingMonitor(tmp_path)
    assert monitor.status["state"] == "silent" and "the log does not grow" in monitor.status["message"]
    monitor.close()


def test_a_command_that_is_not_answered_says_so(tmp_path):
    now = time.time()
    run_folder(tmp_path, state="running", time=now, started=now - 60, world=1, **process_facts())
    (tmp_path / "control.json").write_text(json.dumps({"command": "pause", "time": now - 10}))
    monitor = TrainingMonitor(tmp_path)
    assert monitor.status["state"] == "running" and "Asked to pause" in monitor.status["message"]
    run_folder(tmp_path, state="paused", time=now, started=now - 60, world=1, **process_facts())
    monitor._update()
    assert monitor._state == "paused" and monitor._message == ""
    monitor.close()


BROKEN = [b'{"step": 25, "lo\xff\xfe\x00', b"\xff" * 40, b'{"step": 25, "loss": tru', b"null", b"[1, 2]", b"7", b'"step"', b'{"loss": 1}', b'{"step": null, "loss": 1}', b'{"step": "x"}', b'{"step": 1.5}', b'{"step": NaN}',
          b'{"step": 1e400}', b"[" * 100_000, b"\xc2\x85", b"\x00\x00\x00"]


@pytest.mark.parametrize("broken", BROKEN, ids=range(len(BROKEN)))
def test_a_broken_line_costs_no_good_row(tmp_path, broken):
    run_folder(tmp_path, [*ROWS[:25], broken, *ROWS[26:]])
    monitor = TrainingMonitor(tmp_path)
    assert [row["step"] for row in monitor.history.rows] == [*range(25), *range(26, 50)]
    assert "1 line of the log could not be read" in monitor.status["message"]
    plt.close(monitor.picture())
    monitor.close()


@pytest.mark.parametrize("value", ['"1.0"', "null", '{"a": 1}', "[1]", "NaN", "Infinity", "true", "1" + "0" * 400])
def test_a_term_that_is_no_number_is_a_gap_in_its_curve_only(tmp_path, value):
    run_folder(tmp_path, [*ROWS[:25], f'{{"step": 25, "loss": {value}, "dense": 3}}', *ROWS[26:]])
    monitor = TrainingMonitor(tmp_path)
    assert len(monitor.history) == 50 and numbers(monitor, "dense")[25] == 3 and np.isfinite(np.delete(numbers(monitor, "loss"), 25)).all()
    plt.close(monitor.picture())
    monitor.close()


def test_half_a_line_with_a_whole_one_behind_it_and_lines_out_of_order(tmp_path):
    glued = ROWS[9][:12] + ROWS[10]                                                     # killed within row 9; the next process wrote on
    run_folder(tmp_path, [*ROWS[:9], glued, ROWS[11], ROWS[10], ROWS[4], "\0\0" + ROWS[12] + "\r"])
    monitor = TrainingMonitor(tmp_path)
    assert [row["step"] for row in monitor.history.rows] == [*range(9), 10, 11, 12]
    monitor.close()


def test_foreign_bytes_while_watching(tmp_path):
    run_folder(tmp_path, ROWS[:10])
    monitor = TrainingMonitor(tmp_path, poll=.05)
    with open(tmp_path / "log.jsonl", "ab") as file: file.write(b"\xff\xfe\x00\n" + ROWS[10].encode() + b"\n" + ROWS[11][:9].encode())
    end = time.time() + 20
    while len(monitor.table) < 11 and time.time() < end: time.sleep(.02)
    with open(tmp_path / "log.jsonl", "ab") as file: file.write(ROWS[11][9:].encode() + b"\n")
    while (len(monitor.table) < 12 or "1 line" not in monitor.status["message"]) and time.time() < end: time.sleep(.02)
    assert [row["step"] for row in monitor.history.rows] == list(range(12)) and "1 line" in monitor.status["message"]
    monitor.close()


@pytest.mark.parametrize("name", ["status.json", "config.json", "control.json"])
@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{}", b"7", b"\xff\xfe", b'{"state": "running"', b'{"state": 3}', b'{"state": "running"}', b'{"state": "paused", "time": "x", "pid": "y", "host": 3, "world": null}',
                                  b'{"config": []}', b'{"config": {"steps": "many", "batch_size": null, "collapse_below": "x"}}', b'{"command": 7, "time": []}'])
def test_other_files_may_hold_anything(tmp_path, name, text):
    run_folder(tmp_path, state="running", time=time.time(), **process_facts())
    (tmp_path / name).write_bytes(text)
    monitor = TrainingMonitor(tmp_path)
    assert len(monitor.history) == 50 and monitor.status["state"] in ("running", "paused", "following")
    json.dumps(monitor.front_state()["status"], allow_nan=False)
    monitor.close()


def test_pictures_that_are_half_copied_come_later(tmp_path):
    run_folder(tmp_path)
    whole = save_pictures(tmp_path / "pictures", 3, np.zeros((2, 4, 6, 3), np.uint8)).read_bytes()
    (tmp_path / "pictures" / "step-00000004-n2.png").write_bytes(whole[:40])
    (tmp_path / "pictures" / "holiday.png").write_bytes(whole)
    (tmp_path / "pictures" / "step-00000005-n0.png").write_bytes(whole)
    monitor = TrainingMonitor(tmp_path, poll=1000)
    assert list(monitor.shots) == [3] and "holiday.png" in monitor.status["message"]
    (tmp_path / "pictures" / "step-00000004-n2.png").write_bytes(whole)
    monitor._update()
    assert list(monitor.shots) == [3, 4]
    monitor.close()


def test_the_folder_may_come_later(tmp_path):
    monitor = TrainingMonitor(tmp_path / "runs" / "later", poll=.05)
    assert monitor.status["state"] == "waiting" and "no folder" in monitor.status["message"] and not monitor.status["controls"]
    with pytest.raises(RuntimeError, match="follow_control"): monitor.pause()
    (tmp_path / "runs" / "later").mkdir(parents=True)
    follow_control(tmp_path / "runs" / "later")(0, {"loss": 1.}, None)
    end = time.time() + 20
    while monitor.status["state"] != "running" and time.time() < end: time.sleep(.02)
    assert len(monitor.table) == 1 and monitor.status["state"] == "running" and monitor.status["controls"]
    monitor.close()


def test_a_fault_of_the_watching_thread_is_shown(tmp_path):
    run_folder(tmp_path)
    monitor = TrainingMonitor(tmp_path, poll=.05)
    monitor.reader.read = lambda: 1 / 0
    end = time.time() + 20
    while "ZeroDivisionError" not in monitor.status["message"] and time.time() < end: time.sleep(.02)
    assert "ZeroDivisionError" in monitor.status["message"]
    monitor.close()


# ---------------------------------------------------------------- in the browser
def history(steps=200):
    rows = [{"step": step, "lr": .03, "images_per_second": 100. + step % 7, "loss": 3. - step / 100, "dense": 2 + np.sin(step / 9), "spread": .9 if step < 150 else .01} for step in range(steps)]
    return History(rows)


def finished(steps=200):
    monitor = TrainingMonitor(history(steps), config=TrainConfig(steps=steps, batch_size=4))
    colours = np.zeros((20, 2, 4, 6, 3), np.uint8)
    for i in range(20): colours[i, ..., 0] = 10 * i; monitor._add_picture(10 * i, colours[i])
    monitor._set_sources(np.full((2, 16, 24, 3), 200, np.uint8))
    return monitor


def test_exported_page_draws_every_term_and_follows_the_cursor(open_widget):
    page = open_widget(finished(), scheme="dark")
    terms = page.js("() => [...document.querySelectorAll('.pxm-card')].map(c => c.dataset.term)")
    assert terms == ["loss", "dense", "spread", "lr", "images_per_second"]
    page.slide("Smoothing", 0)
    assert "finished" in page.text(".pxm-badge") and "step 200 of 200" in page.text(".pxm-facts")
    assert not page.page.locator(".pxm-buttons").is_visible()         # nothing to steer without a kernel
    assert page.text("[data-term=spread]").find("collapse") >= 0
    ink = "(c) => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; let n = 0; for (let i = 0; i < d.length; i += 4) n += d[i + 3] > 100 && d[i + 2] > 180 && d[i] < 140; return n; }"
    drawn = page.js(f"() => [...document.querySelectorAll('.pxm-chart')].map({ink})")
    assert len(drawn) == 5 and min(drawn) > 100, drawn
    page.hover("[data-term=loss] canvas", .6, .5)
    cursor = page.hook("w.cursor")
    assert 90 < cursor < 130
    assert abs(float(page.js("() => document.querySelector('[data-term=loss]').dataset.value")) - (3 - cursor / 100)) < 1e-9
    assert page.js("() => document.querySelector('.pxw').dataset.picture") == str(cursor // 10 * 10)
    assert f"step {cursor}:" in page.text(".pxm-readout")
    pixel = page.js("() => [...document.querySelector('.pxm-features').getContext('2d').getImageData(0, 0, 1, 1).data]")
    assert pixel == [cursor // 10 * 10, 0, 0, 255]


def test_keys_move_the_cursor_and_a_snapshot_can_be_picked(open_widget):
    page = open_widget(finished(), width=480)
    assert page.overflow() == 0
    page.press(".pxm-charts", "Home", "ArrowRight", "ArrowRight", "PageDown")
    assert page.hook("w.cursor") == 22
    page.press(".pxm-charts", "Escape")
    assert page.hook("w.cursor") is None
    page.page.get_by_label("pixels at step 50", exact=True).press("Enter")
    assert page.js("() => document.querySelector('.pxw').dataset.picture") == "50"
    assert page.page.get_by_label("pixels at step 50", exact=True).get_attribute("aria-pressed") == "true"
    page.field("Steps").select_option("50")
    page.settle()
    page.hover("[data-term=loss] canvas", .2, .5)
    assert page.hook("w.cursor") >= 150


def test_appended_rows_are_drawn_without_a_new_table_and_buttons_ask(open_widget):
    page = open_widget(finished(60))
    page.js("""() => { const model = window.pixcl.model, heard = []; window.heard = heard; model.send = (content) => heard.push(content); }""")
    send = """([start, rows]) => { const epoch = window.pixcl.model.get('epoch'); 
               const root = document.querySelector('.pxw').pxw; root.hear({ kind: 'rows', start, epoch }, [new DataView(new Float64Array(rows.flat()).buffer)]); }"""
    whole = page.hook("w.stats.whole")
    page.js(send, [60, [[60, .03, 100, 9., 2., .9]]])
    page.settle()
    assert page.hook("w.table.count") == 61 and page.hook("w.stats.whole") == whole
    page.js(send, [70, [[70, .03, 100, 9., 2., .9]]])                 # a gap: the page asks
    assert page.js("() => window.heard.pop()") == {"kind": "rows", "have": 61}
    page.set("status", {"state": "running", "step": 60, "total": 200, "rate": 80., "elapsed": 12, "eta": 100, "message": "", "controls": True})
    page.page.get_by_role("button", name="Pause").click()
    assert page.js("() => window.heard.pop()") == {"kind": "command", "command": "pause"}
    page.page.get_by_role("button", name="Stop").click()
    assert page.js("() => window.heard.length") == 0                  # asked once more first
    page.page.get_by_role("button", name="Really stop?").click()
    assert page.js("() => window.heard.pop()") == {"kind": "command", "command": "stop"}
    assert "1 min 40 s to go" in page.text(".pxm-facts")


def test_the_page_notices_that_python_says_nothing_any_more(open_widget):
    page = open_widget(finished(60))
    live = {"state": "running", "step": 60, "total": 200, "rate": 80., "elapsed": 12, "eta": 100, "message": "", "controls": True, "looked": 1_700_000_000}
    page.set("status", live)
    page.hook("w.checkKernel(performance.now() + 20_000)")
    assert page.text(".pxm-badge") == "running" and page.page.locator(".pxm-buttons").is_visible()
    page.hook("w.checkKernel(performance.now() + 31_000)")
    assert page.text(".pxm-badge") == "no sign of life" and "No word from Python since" in page.text(".pxm-message") and not page.page.locator(".pxm-buttons").is_visible()
    page.set("status", {**live, "step": 61})                          # it was only busy
    assert page.text(".pxm-badge") == "running" and not page.page.locator(".pxm-message").is_visible()
    page.set("status", {**{k: v for k, v in live.items() if k != "looked"}, "state": "finished"})
    page.hook("w.checkKernel(performance.now() + 1e9)")                # a run that is over has nothing to say
    assert page.text(".pxm-badge") == "finished"


def test_an_exported_page_says_when_it_was_so(open_widget):
    monitor = TrainingMonitor(config=TrainConfig(steps=30, batch_size=4))
    monitor.on_step(0, {"loss": 1.}, None)
    page = open_widget(monitor)
    page.hook("w.checkKernel(performance.now() + 1e9)")
    assert page.text(".pxm-badge") == "running" and "As it stood at" in page.text(".pxm-message")


def test_a_folder_that_goes_away_is_said_to_be(tmp_path):
    run_folder(tmp_path / "run")
    monitor = TrainingMonitor(tmp_path / "run", poll=1000)
    shutil.rmtree(tmp_path / "run")
    monitor._update()
    assert len(monitor.history) == 50 and monitor._state == "silent" and "any more" in monitor._message
    monitor.close()


def test_a_run_that_takes_long_to_begin_gives_signs_of_life():
    class Slow(list):
        def __getitem__(self, index): time.sleep(.4); return super().__getitem__(index)
    monitor = TrainingMonitor(poll=.05)
    told = []
    monitor.observe(lambda change: told.append(change.new.get("looked")), "status")
    monitor.run(Toy(), Slow(DATA), TrainConfig(steps=1, batch_size=4, device="cpu", progress=False))
    monitor.wait(60)
    assert len({looked for looked in told if looked}) >= 2


def test_static_picture_and_history_agree():
    monitor = finished()
    figure = monitor.picture()
    titles = [axis.get_title() for part in figure.subfigs for axis in part.axes]
    assert titles[0] == "loss" and "learning rate" in titles and "step 190" in titles
    assert np.allclose(figure.subfigs[0].axes[0].lines[0].get_ydata(), monitor.history["loss"])


# ---------------------------------------------------------------- in JupyterLab
NOTEBOOK = ["""import sys; sys.path.insert(0, {tests!r})
from test_monitor import *
from test_embedding import explorer
long = TrainConfig(steps=100_000, batch_size=4, device="cpu", progress=False, collapse_below=0)
monitor, second, points = TrainingMonitor(config=long, images=IMAGES, every=5), TrainingMonitor(images=IMAGES, every=5), explorer()""",
            "monitor", "second",
            "import ipywidgets; heard = ipywidgets.Label(); points.observe(lambda change: setattr(heard, 'value', f'selected {{len(change.new)}} of {{points.count}}'), 'selected'); display(points, heard)",
            "history = pretrain(Toy(.02), DATA, long, on_step=monitor.on_step); print('kernel is free again,', 'stopped early' if history.stopped_early else 'ran through')",
            "second.run(Toy(.02), DATA, long); print('returned at once')",
            "print('second:', 'stopped early' if second.wait(120).stopped_early else 'ran through')"]


@pytest.mark.long
def test_in_jupyterlab_the_buttons_are_heard_while_the_kernel_trains(tmp_path):
    "A cell that blocks in pretrain(on_step=…) and a run in a thread are both paused, resumed and stopped from the page; the explorer's lasso reaches Python."
    import nbformat
    from browser import chromium, no_browser
    browser = chromium()
    if isinstance(browser, str): no_browser(browser)
    sys.path.insert(0, os.path.join(os.path.dirname(__file__), "tools"))
    from browser_check import LabServer, NotebookPage
    cells = [nbformat.v4.new_code_cell(text.format(tests=os.path.dirname(os.path.abspath(__file__)))) for text in NOTEBOOK]
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}), tmp_path / "monitor.ipynb")
    class Lent: context = browser.new_context(viewport={"width": 1300, "height": 1400})
    with LabServer(tmp_path) as server:
        notebook = NotebookPage(Lent, server, "monitor.ipynb", timeout=120)
        page = notebook.page
        page.evaluate("() => { window.jupyterapp.commands.execute('notebook:run-all-cells'); }")            # not awaited: cell 4 runs until it is stopped
        try:
            for cell in (1, 2):
                widget = notebook.scope({"cell": cell}).locator(".pxw-monitor")
                state = lambda what: page.wait_for_function("([w, what]) => w.dataset.state === what", arg=[widget.element_handle(timeout=120_000), what], timeout=120_000)
                rows = lambda: int(widget.get_attribute("data-rows") or 0)
                if cell == 2: notebook.act({"do": "expect", "cell": 5, "text": "returned at once", "timeout": 60})
                state("running")
                widget.get_by_role("button", name="Pause").click()
                state("paused")
                page.wait_for_timeout(600)
                held = rows()
                page.wait_for_timeout(800)
                assert rows() == held > 0
                widget.get_by_role("button", name="Resume").click()
                page.wait_for_function("([w, n]) => Number(w.dataset.rows) > n + 3", arg=[widget.element_handle(), held], timeout=60_000)
                assert widget.locator(".pxm-shot").count() > 0
                if cell == 1:
                    plot = notebook.scope({"cell": 3}).locator(".pxe-plot")
                    plot.scroll_into_view_if_needed()
                    box = plot.bounding_box()
                    page.mouse.move(box["x"] + 3, box["y"] + 3); page.mouse.down()
                    for x, y in ((.99, .01), (.99, .99), (.01, .99)): page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=4)
                    page.mouse.up()                                       # while the kernel is busy
                widget.locator(".pxm-buttons button").nth(1).evaluate("button => { button.click(); button.click(); }")     # twice: it asks once more
                state("stopped")
                notebook.act({"do": "expect", "cell": {1: 4, 2: 6}[cell], "text": "stopped early", "timeout": 60})
            notebook.act({"do": "expect", "cell": 3, "text": "selected 384 of 384", "timeout": 60})
            assert notebook.report()["ok"], notebook.problems
        finally:
            page.screenshot(path=str(tmp_path / "lab.png"))
            Lent.context.close()
