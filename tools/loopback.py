"""Requests to an Orthanc on this machine."""

import ssl
import urllib.request

_ANY_CERTIFICATE = ssl._create_unverified_context()  # noqa: S323 - a certificate is for the name that others use

TO_THIS_MACHINE = urllib.request.build_opener(
    # A proxy of the environment, where pip needs one, would get Orthanc's password.
    urllib.request.ProxyHandler({}),
    urllib.request.HTTPSHandler(context=_ANY_CERTIFICATE),
)
"""Opens addresses on loopback, with whatever certificate over HTTPS."""
