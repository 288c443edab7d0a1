"""A real RTSP server (GStreamer's) for `benchmarks.rtsp_camera`; run by the system's Python, which has its bindings.

Usage: rtsp_server.py h264|jpeg WIDTH HEIGHT. It prints its port, and then reads orders, one a line: "size WIDTH HEIGHT"
changes the pictures while they flow; "end" ends every session, "drop" every connection too; "hide" and "show" take the
stream away and bring it back; "lock" and "unlock" ask for the password or not.
"""

from __future__ import annotations

import sys
import threading

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402  # only after their versions were said

PATH, USER, PASSWORD = "/live", "watcher", "right"
RATE = 15
CODERS = {
    "h264": f"x264enc tune=zerolatency speed-preset=ultrafast bitrate=1000 key-int-max={RATE} threads=1"
    " ! h264parse ! rtph264pay name=pay0 pt=96 config-interval=-1",
    "jpeg": "jpegenc ! rtpjpegpay name=pay0 pt=26",
}


def main(coder: str, size: tuple[int, int]) -> None:
    """Serve until the standard input ends."""
    Gst.init(None)
    Gst.parse_launch(pipeline(coder, size))  # what is missing is said now, not to the first client
    factory = GstRtspServer.RTSPMediaFactory()
    factory.set_shared(True)
    factory.set_launch(pipeline(coder, size))
    medias = []
    factory.connect("media-configure", lambda _, media: medias.append(media))
    permissions = GstRtspServer.RTSPPermissions()
    for what in ("access", "construct"):
        permissions.add_permission_for_role(USER, f"media.factory.{what}", True)
    factory.set_permissions(permissions)

    server = GstRtspServer.RTSPServer()
    server.set_address("127.0.0.1")
    server.set_service("0")
    server.get_mount_points().add_factory(PATH, factory)
    server.attach(None)
    role = GstRtspServer.RTSPToken()
    role.set_string("media.factory.role", USER)
    lock = GstRtspServer.RTSPAuth()
    lock.add_basic(GstRtspServer.RTSPAuth.make_basic(USER, PASSWORD), role)

    def remove(*_: object) -> GstRtspServer.RTSPFilterResult:
        return GstRtspServer.RTSPFilterResult.REMOVE

    def follow(order: str, *more: str) -> None:
        if order == "size":
            new = int(more[0]), int(more[1])
            factory.set_launch(pipeline(coder, new))
            for media in medias:
                media.get_element().get_by_name("form").set_property("caps", Gst.Caps.from_string(form(new)))
        elif order == "drop":
            server.client_filter(remove)
        elif order == "end":
            server.get_session_pool().filter(remove)
        elif order == "hide":
            server.get_mount_points().remove_factory(PATH)
        elif order == "show":
            server.get_mount_points().add_factory(PATH, factory)
        elif order == "lock":
            server.set_auth(lock)
        elif order == "unlock":
            server.set_auth(None)

    def listen() -> None:
        for line in sys.stdin:
            GLib.idle_add(follow, *line.split())
        GLib.idle_add(loop.quit)

    loop = GLib.MainLoop()
    threading.Thread(target=listen, daemon=True).start()
    print(server.get_bound_port(), flush=True)
    loop.run()


def pipeline(coder: str, size: tuple[int, int]) -> str:
    """Return what makes the stream, in GStreamer's words."""
    picture = "videotestsrc is-live=true pattern=ball animation-mode=frames"
    return f"( {picture} ! capsfilter name=form caps={form(size)} ! {CODERS[coder]} )"


def form(size: tuple[int, int]) -> str:
    """Return the pictures' form in GStreamer's words."""
    return f"video/x-raw,format=I420,width={size[0]},height={size[1]},framerate={RATE}/1"


if __name__ == "__main__":
    main(sys.argv[1], (int(sys.argv[2]), int(sys.argv[3])))
