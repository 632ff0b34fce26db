"""A TPM as a character device: a terminal in raw mode, behind which a TPM's socket answers.

`tpm_device.py SOCKET` prints the device's path and goes on until its standard input ends. libtss2 writes a whole command to the
device and reads an answer, as it does with /dev/tpmrm0. The TPM behind the socket may lose its power and be another one afterwards.
"""
import os
import pty
import socket
import struct
import sys
import threading
import time
import tty


def whole(read):
    data = b""
    while len(data) < 10 or len(data) < struct.unpack(">I", data[2:6])[0]:
        more = read()
        if not more:
            raise EOFError
        data += more
    return data


def connected(path):
    while True:
        tpm = socket.socket(socket.AF_UNIX)
        try:
            tpm.connect(path)
            return tpm
        except OSError:
            tpm.close()
            time.sleep(0.02)


def end_with_the_test():
    sys.stdin.buffer.read()
    os._exit(0)


def main(path):
    master, slave = pty.openpty()
    tty.setraw(slave)
    print(os.ttyname(slave), flush=True)
    threading.Thread(target=end_with_the_test, daemon=True).start()
    tpm = connected(path)
    while True:
        command = whole(lambda: os.read(master, 4096))
        while True:
            try:
                tpm.sendall(command)
                answer = whole(lambda: tpm.recv(4096))
                break
            except (OSError, EOFError):
                tpm.close()
                tpm = connected(path)
        os.write(master, answer)


main(sys.argv[1])
