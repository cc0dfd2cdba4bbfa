"""Frames that came from real meters, each with the public source that shows it."""

from __future__ import annotations

import pytest

from agent.meters import decoder

# jedie/tc66c2mqtt, tests/fixtures.py: 5.1609 V, 0.0199 A, 0.1026 W, 27 °C, D+ 2.81 V, D− 2.80 V, 5 mWh.
TC66C = bytes.fromhex(
    "006630928cdbb01e307647693bac80b012a60ec3c8645b9af0ead3c57ae5a0628f330593ff8f836a2a36d60f8709fc4fc5ec277ef1"
    "b0dbb4815a9497d8646eb206f404f8061c1177e994f37dfc6f4dab07385ea4d05c1e32616e88527b57d3106babf8c170d31db582db"
    "234384fa559313e92b412f6af4e16e09168c608fba0a4231f411e56f5c203c590b4a68fd5b092aca6ec4a4554d5542e8674b097e25"
    "9c2aca6ec4a4554d5542e8674b097e259ce09c4004c92da948c3165eebdb8b9ec2"
)
# sigrok wiki, RDTech UM series: five dumps of one UM34C; between them nine bytes change.
UM34C_HEADS = ("0d4c01fe0000000000000014004400", "0d4c01fe0000000000000014004500", "0d4c01fe0000000000000015004600")
UM34C_HEADS += ("0d4c01fe0000000000000015004600", "0d4c01fc0000000000000015004600")
UM34C_DATA_PLUS = ("0001", "0000", "0000", "0000", "0000")
UM34C_TAILS = ("688c", "688d", "688d", "688d", "688f")
# energymon/osp3, tests: the first line from the maker's wiki, the others from a device with its outputs off.
SMARTPOWER3 = (
    b"0000815169,15296,0036,00550,0,00000,0000,00000,0,00,00000,0000,00000,0,00,14,12\r\n"
    b"0343732187,15321,0072,01103,0,00000,0000,00000,0,00,00000,0000,00000,0,00,1c,12\r\n"
    b"0343732197,15332,0084,01287,0,00000,0000,00000,0,00,00000,0000,00000,0,00,09,17\r\n"
    b"0343732207,15328,0055,00843,0,00000,0000,00000,0,00,00000,0000,00000,0,00,11,19\r\n"
)
# syssi/esphome-atorch-dl24, docs/pdus: a J7-C, whose checksum never holds, a DL24 and a DT3010.
J7C = (
    "FF5501030007EF00002300015A000002BF00090009001F000026003C0DAC01220320000D",
    "FF5501030007F000002100015A000002BF00090009001F000026013C0DAC0122032000BE",
    "FF5501030007EF00002300015A000002BF00090009001E000026023C0DAC0122032000E8",
    "FF5501030007EF00002400015B000002BF00080009001E000026033C0DAC01220320009C",
)
DL24 = (
    "FF550102000020004E200013FA000000110000000000000000250002211A3C0000000009",
    "FF550102000020004E1E0013FA000000110000000000000000250002211B3C0000000008",
    "FF550102000020004E210013FB000000110000000000000000250002211C3C0000000015",
)
DT3010 = (
    "FF550102000A1000007600000A0000680E000064000000000016000000003C000000008D",
    "FF550102000A1300007600000A0000680E000064000000000016000000003C0000000088",
)
# syssi/esphome-atorch-dl24, issue 59: a DL24M that idles.
DL24M = tuple(
    f"FF5501020000000000000000AD00000002000000000000000015000000003C00000000{end}"
    for end in ("AC", "CF", "EA", "8D", "28", "43")
)
# CursedHardware/atorch-console, packet-meter-*.spec.ts.
UD18 = (
    ("FF5501030001FB000000003CC70000554E00070007000000472F243C00000000000000CE", 5.07, 0.0, 0.0),
    ("FF5501030001CD00007F003CC80000554E0009000A00000047300D3C000000000000008F", 4.61, 1.27, 0.0),
    ("FF5501030001FB000001006C3F00006C4400070006001A00471C1A3C0000000000000078", 5.07, 0.01, 26.0),
)
DC = (
    ("FF55010200011A00003C0004D40000002000006400000000002600590D363C00000000F0", 28.2, 0.06, 38.0),
    ("FF55010200011A0000000004D40000002000006400000000002A00590E343C000000003F", 28.2, 0.0, 42.0),
)
# jfikar/RPi5-power, README: a Pi 5 under load.
PI5 = """ 3V7_WL_SW_A current(0)=0.00000000A
   3V3_SYS_A current(1)=0.06245952A
   1V8_SYS_A current(2)=0.16102850A
  DDR_VDD2_A current(3)=0.00780744A
  DDR_VDDQ_A current(4)=0.00000000A
   1V1_SYS_A current(5)=0.17566740A
    0V8_SW_A current(6)=0.32791250A
  VDD_CORE_A current(7)=10.87674000A
   3V3_DAC_A current(17)=0.00036630A
   3V3_ADC_A current(18)=0.00042735A
   0V8_AON_A current(16)=0.00579975A
      HDMI_A current(22)=0.01367520A
 3V7_WL_SW_V volt(8)=3.79999600V
   3V3_SYS_V volt(9)=3.30632200V
   1V8_SYS_V volt(10)=1.79828900V
  DDR_VDD2_V volt(11)=1.10292900V
  DDR_VDDQ_V volt(12)=0.60476130V
   1V1_SYS_V volt(13)=1.10439400V
    0V8_SW_V volt(14)=0.80256330V
  VDD_CORE_V volt(15)=0.89745940V
   3V3_DAC_V volt(20)=3.30494200V
   3V3_ADC_V volt(21)=3.30219400V
   0V8_AON_V volt(19)=0.79736190V
      HDMI_V volt(23)=5.07056000V
     EXT5V_V volt(24)=5.06788000V
      BATT_V volt(25)=3.01110800V"""


def test_a_tc66c() -> None:
    target = decoder("tc66c")
    (reading,) = target.feed(TC66C)
    assert (reading.voltage_v, reading.current_a, reading.power_w) == (5.1609, 0.0199, 0.1026)
    assert (reading.resistance_ohm, reading.temp_c) == (2593 / 10, 27.0)
    assert (reading.data_plus_v, reading.data_minus_v) == (2.81, 2.80)
    assert (reading.charge_c, reading.energy_j) == (0.0, pytest.approx(5 * 3.6))
    assert reading.resistance_ohm == pytest.approx(reading.voltage_v / reading.current_a, abs=0.1)
    assert not target.rejected


def test_five_dumps_of_a_um34c_glued_together() -> None:
    middle = "0000000b00000038" + 72 * "00"
    end = "000000070000000000000000000a000000000000000200040001869f0000"
    frames = [
        bytes.fromhex(head + "0000" + middle[2:] + plus + end + tail)
        for head, plus, tail in zip(UM34C_HEADS, UM34C_DATA_PLUS, UM34C_TAILS, strict=True)
    ]
    assert {len(frame) for frame in frames} == {130}
    target = decoder("um34c")
    readings = target.feed(b"".join(frames))
    assert not target.rejected
    assert [r.voltage_v for r in readings] == [5.10, 5.10, 5.10, 5.10, 5.08]
    assert [r.temp_c for r in readings] == [20.0, 20.0, 21.0, 21.0, 21.0]
    assert {(r.model, r.current_a, r.group) for r in readings} == {("UM34C", 0.0, 0)}
    assert [r.energy_j for r in readings] == [pytest.approx(56 * 3.6)] * 5


def test_lines_of_a_smartpower3() -> None:
    target = decoder("smartpower3")
    readings = target.feed(SMARTPOWER3)
    assert [r.device_time_s for r in readings] == [815.169, 343732.187, 343732.197, 343732.207]
    assert not target.rejected
    assert {(r.voltage_v, r.current_a, r.power_w) for r in readings} == {(0.0, 0.0, 0.0)}


@pytest.mark.parametrize("kind", ["atorch", "j7c"])
def test_a_j7c_is_read_although_its_checksum_never_holds(kind: str) -> None:
    target = decoder(kind)
    readings = target.feed(b"".join(bytes.fromhex(text) for text in J7C))
    assert [(r.voltage_v, r.current_a) for r in readings] == [
        (20.31, 0.35),
        (20.32, 0.33),
        (20.31, 0.35),
        (20.31, 0.36),
    ]
    assert {r.model for r in readings} == {"J7-C"}
    assert (readings[0].charge_c, readings[0].energy_j) == (pytest.approx(346 * 3.6), pytest.approx(703 * 36.0))
    assert not target.rejected


@pytest.mark.parametrize("kind", ["atorch", "dl24m"])
def test_direct_current_meters(kind: str) -> None:
    readings = decoder(kind).feed(b"".join(bytes.fromhex(text) for text in DL24))
    assert [(r.voltage_v, r.current_a) for r in readings] == [(3.2, 20.0), (3.2, 19.998), (3.2, 20.001)]
    readings = decoder(kind).feed(b"".join(bytes.fromhex(text) for text in DT3010))
    assert [(r.voltage_v, r.current_a, r.temp_c) for r in readings] == [(257.6, 0.118, 22.0), (257.9, 0.118, 22.0)]


@pytest.mark.parametrize("kind", ["atorch", "dl24m"])
@pytest.mark.parametrize("piece", [1, 36, 1000])
def test_a_dl24m_is_read_although_its_checksum_never_holds(kind: str, piece: int) -> None:
    data = b"".join(bytes.fromhex(text) for text in DL24M)
    target = decoder(kind)
    readings = [r for at in range(0, len(data), piece) for r in target.feed(data[at : at + piece])]
    assert [(r.voltage_v, r.current_a, r.temp_c) for r in readings] == [(0.0, 0.0, 21.0)] * 6
    assert not target.rejected


def test_a_damaged_report_that_comes_twice_is_no_dl24m() -> None:
    good, damaged = bytes.fromhex(DL24[0]), bytearray(bytes.fromhex(DL24[0]))
    damaged[5] ^= 0x40
    assert len(decoder("atorch").feed(bytes(damaged) * 2 + good)) == 1
    assert len(decoder("atorch").feed(good[:-1] + b"\x00" + good)) == 1


@pytest.mark.parametrize(("text", "voltage_v", "current_a", "temp_c"), [*UD18, *DC])
def test_reports_of_atorch(text: str, voltage_v: float, current_a: float, temp_c: float) -> None:
    target = decoder("atorch")
    (reading,) = target.feed(bytes.fromhex(text))
    assert (reading.voltage_v, reading.current_a, reading.temp_c) == (voltage_v, current_a, temp_c)
    assert not target.rejected


def test_rails_of_a_pi5_also_without_a_last_line_end() -> None:
    volts = {
        line.split("_V volt")[0].strip(): float(line.split("=")[1][:-1]) for line in PI5.splitlines() if " volt" in line
    }
    amps = {
        line.split("_A current")[0].strip(): float(line.split("=")[1][:-1])
        for line in PI5.splitlines()
        if " cur" in line
    }
    (reading,) = decoder("pi5-pmic").feed(PI5.encode())
    assert reading.power_w == pytest.approx(sum(amps[rail] * volts[rail] for rail in amps))
    assert 10.0 < reading.power_w < 11.5
    assert (reading.voltage_v, reading.model) == (5.06788, "board rails")
    assert len(decoder("pi5-pmic").feed((PI5 + "\n" + PI5 + "\n").encode())) == 2
