"""Flask and Django behind the server, unmodified, as their users see them: requests, httpx and http.client ask."""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from serving import Command

httpx = pytest.importorskip("httpx", reason="httpx is not installed")
requests = pytest.importorskip("requests", reason="requests is not installed")

FLASK = """
    import threading, time
    from flask import Flask, Response, abort, jsonify, redirect, request, session, stream_with_context, url_for

    app = Flask(__name__, static_folder="static")
    app.secret_key = "for the test"

    @app.get("/")
    def index():
        return "hello"

    @app.get("/user/<name>/<int:number>")
    def user(name, number):
        return jsonify(name=name, number=number, query=request.args.to_dict(), agent=request.headers["User-Agent"])

    @app.post("/form")
    def form():
        return jsonify(request.form.to_dict(flat=False))

    @app.post("/upload")
    def upload():
        file = request.files["file"]
        data = file.read()
        return jsonify(name=file.filename, size=len(data), sum=sum(data) % 65521, note=request.form["note"])

    @app.put("/json")
    def json():
        return jsonify(request.get_json())

    @app.get("/stream/<int:count>")
    def stream(count):
        def lines():
            for n in range(count):
                yield f"{n} {request.path}\\n"
        return Response(stream_with_context(lines()), mimetype="text/plain")

    @app.get("/count")
    def count():
        session["count"] = session.get("count", 0) + 1
        return str(session["count"])

    @app.get("/login")
    def login():
        return redirect(url_for("index"))

    @app.get("/fail")
    def fail():
        raise ZeroDivisionError("on purpose")

    meeting = threading.Barrier(50)

    @app.get("/meet")
    def meet():
        meeting.wait(100)
        time.sleep(0.01)
        return "met"

    @app.post("/raw")
    def raw():
        return request.get_data()
"""

DJANGO = """
    import threading
    from pathlib import Path
    import django
    from django.conf import settings

    HERE = Path(__file__).parent
    settings.configure(
        DEBUG=False,
        SECRET_KEY="for the test",
        ALLOWED_HOSTS=["127.0.0.1"],
        ROOT_URLCONF=__name__,
        INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.sessions"],
        MIDDLEWARE=[
            "django.middleware.security.SecurityMiddleware",
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.common.CommonMiddleware",
        ],
        DATABASES={"default": {
            "ENGINE": "django.db.backends.sqlite3", "NAME": HERE / "db.sqlite3", "OPTIONS": {"timeout": 60},
        }},
        LOGGING_CONFIG=None,
        USE_TZ=True,
    )
    django.setup()

    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application
    from django.db import connection, models, transaction
    from django.http import FileResponse, HttpResponse, JsonResponse, StreamingHttpResponse
    from django.urls import path

    class Note(models.Model):
        text = models.CharField(max_length=200)

        class Meta:
            app_label = "notes"

    call_command("migrate", verbosity=0)
    with connection.schema_editor() as editor:
        editor.create_model(Note)
    connection.close()

    # SQLite waits for another's transaction in C, which holds the worker: nobody may wait for one that lives there.
    writing = threading.Lock()

    def notes(request):
        if request.method == "POST":
            with writing, transaction.atomic():
                note = Note.objects.create(text=request.POST["text"])
            return JsonResponse({"id": note.id}, status=201)
        return JsonResponse({"notes": list(Note.objects.order_by("id").values_list("text", flat=True))})

    def upload(request):
        file = request.FILES["file"]
        return JsonResponse({"name": file.name, "size": file.size, "sum": sum(file.read()) % 65521})

    def count(request):
        request.session["count"] = request.session.get("count", 0) + 1
        return HttpResponse(str(request.session["count"]))

    def stream(request, count):
        return StreamingHttpResponse((f"{n}\\n" for n in range(count)), content_type="text/plain")

    def file(request):
        return FileResponse(open(HERE / "static" / "large.bin", "rb"))

    def fail(request):
        raise ZeroDivisionError("on purpose")

    urlpatterns = [
        path("notes", notes),
        path("upload", upload),
        path("count", count),
        path("stream/<int:count>", stream),
        path("file", file),
        path("fail", fail),
    ]
    app = get_wsgi_application()
"""

LARGE = bytes(range(256)) * 4000
UPLOAD = os.urandom(300_000)


def started(folder: Path, code: str) -> Command:
    (folder / "static").mkdir()
    (folder / "static" / "large.bin").write_bytes(LARGE)
    return Command(folder, code)


@pytest.fixture(scope="module")
def flask(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("flask", reason="Flask is not installed")
    with started(tmp_path_factory.mktemp("flask"), FLASK) as command:
        yield f"http://127.0.0.1:{command.where[1]}"
        assert command.stop() == 0, command.err
        assert command.err.count("Traceback") == 1 and "on purpose" in command.err, command.err


@pytest.fixture(scope="module")
def django(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    pytest.importorskip("django", reason="Django is not installed")
    with started(tmp_path_factory.mktemp("django"), DJANGO) as command:
        yield f"http://127.0.0.1:{command.where[1]}"
        assert command.stop() == 0, command.err
        # Django reports its own failures by logging, which the command shows.
        assert command.err.count("ZeroDivisionError: on purpose") == 1, command.err


def test_flask_routes_forms_and_json(flask: str) -> None:
    with requests.Session() as client:
        assert client.get(flask).text == "hello"
        told = client.get(f"{flask}/user/J%C3%BCrgen/7?a=b&c=%20", headers={"User-Agent": "x"}).json()
        assert told == {"name": "Jürgen", "number": 7, "query": {"a": "b", "c": " "}, "agent": "x"}
        form = {"one": ["1"], "two": ["2", "zwei ü"]}
        assert client.post(f"{flask}/form", data=form).json() == form
        assert client.put(f"{flask}/json", json={"a": [1, None]}).json() == {"a": [1, None]}
        assert client.get(f"{flask}/login").url == f"{flask}/"
        assert client.get(f"{flask}/nowhere").status_code == 404
        assert client.post(flask).status_code == 405
        assert client.get(f"{flask}/fail").status_code == 500
        assert client.head(flask).headers["Content-Length"] == "5"


def test_flask_sessions_are_each_clients_own(flask: str) -> None:
    with httpx.Client(trust_env=False) as one, httpx.Client(trust_env=False) as other:
        assert [one.get(f"{flask}/count").text for _ in range(3)] == ["1", "2", "3"]
        assert other.get(f"{flask}/count").text == "1"


def test_flask_uploads_streams_and_static_files(flask: str) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        answer = client.post(f"{flask}/upload", files={"file": ("f.bin", UPLOAD)}, data={"note": "n"}).json()
        assert answer == {"name": "f.bin", "size": len(UPLOAD), "sum": sum(UPLOAD) % 65521, "note": "n"}
        with client.stream("GET", f"{flask}/stream/1000") as stream:
            assert list(stream.iter_lines()) == [f"{n} /stream/1000" for n in range(1000)]
        answer = client.get(f"{flask}/static/large.bin")
        assert answer.content == LARGE and answer.headers["Content-Length"] == str(len(LARGE))
        part = client.get(f"{flask}/static/large.bin", headers={"Range": "bytes=1000-1999"})
        assert (part.status_code, part.content) == (206, LARGE[1000:2000])
        tag = answer.headers["ETag"]
        assert client.get(f"{flask}/static/large.bin", headers={"If-None-Match": tag}).status_code == 304
        assert client.post(f"{flask}/raw", content=iter([b"in", b"", b"chunks"])).content == b"inchunks"


def test_flask_handlers_that_wait_do_so_at_the_same_time(flask: str) -> None:
    """50 handlers wait for each other, in the standard library's way, on two workers."""
    with ThreadPoolExecutor(50) as threads:
        told = list(threads.map(lambda _: requests.get(f"{flask}/meet", timeout=100).text, range(50)))
    assert told == ["met"] * 50


def test_flask_answers_a_connection_that_is_kept(flask: str) -> None:
    client = http.client.HTTPConnection(flask.removeprefix("http://"), timeout=60)
    for number in range(100):
        client.request("POST", "/raw", body=b"%d" % number)
        assert client.getresponse().read() == b"%d" % number
    client.close()


def test_django_with_its_database(django: str) -> None:
    texts = [f"note {number} ü" for number in range(40)]

    def post(text: str) -> int:
        answer = requests.post(f"{django}/notes", data={"text": text}, timeout=60)
        assert answer.status_code == 201, answer.text
        number: int = answer.json()["id"]
        return number

    with ThreadPoolExecutor(8) as threads:
        numbers = list(threads.map(post, texts))
    assert sorted(numbers) == list(range(1, 41))
    stored = requests.get(f"{django}/notes", timeout=60).json()["notes"]
    assert sorted(stored) == sorted(texts)
    assert [stored[number - 1] for number in numbers] == texts


def test_django_sessions_uploads_streams_and_files(django: str) -> None:
    with httpx.Client(trust_env=False, timeout=60) as client:
        assert [client.get(f"{django}/count").text for _ in range(3)] == ["1", "2", "3"]
        answer = client.post(f"{django}/upload", files={"file": ("f.bin", UPLOAD)}).json()
        assert answer == {"name": "f.bin", "size": len(UPLOAD), "sum": sum(UPLOAD) % 65521}
        assert client.get(f"{django}/stream/500").text.split() == [str(n) for n in range(500)]
        answer = client.get(f"{django}/file")
        assert answer.content == LARGE and answer.headers["Content-Length"] == str(len(LARGE))
        assert client.get(f"{django}/fail").status_code == 500
        assert client.get(f"{django}/nowhere").status_code == 404
