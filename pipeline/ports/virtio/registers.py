"""The registers, features and commands of virtio-net that the driver uses.

Names, numbers and sections are those of Virtio 1.2. Addresses of registers are offsets in the
structure of a PCI capability. The specification demands accesses of the width of each field.
"""

from ringline.pipeline.ports.registers import table

# 4.1.4.3: the common configuration
COMMON = table(
    """\
DEVICE_FEATURE_SELECT  0x00  -       RW    which 32 features DEVICE_FEATURE shows
DEVICE_FEATURE         0x04  -       RO    features that the device offers
DRIVER_FEATURE_SELECT  0x08  -       RW    which 32 features DRIVER_FEATURE sets
DRIVER_FEATURE         0x0C  -       RW    features that the driver accepts
NUM_QUEUES             0x12  -       RO16  the most queues, with the control queue
DEVICE_STATUS          0x14  -       RW8   status | ACKNOWLEDGE 0, DRIVER 1, DRIVER_OK 2, FEATURES_OK 3, NEEDS_RESET 6, ALL 7:0
QUEUE_SELECT           0x16  -       RW16  which queue the following registers are of
QUEUE_SIZE             0x18  -       RW16  descriptors; first the most, 0 for no queue
QUEUE_ENABLE           0x1C  -       RW16  whether the device uses the queue
QUEUE_NOTIFY_OFF       0x1E  -       RO16  place of its doorbell
QUEUE_DESC             0x20  -       RW64  address of the descriptors
QUEUE_DRIVER           0x28  -       RW64  address of the available ring
QUEUE_DEVICE           0x30  -       RW64  address of the used ring
"""  # noqa: E501 - a register is one line
)
# 5.1.4: the device configuration of a network device
NETWORK = table(
    """\
MAC                               0x00  +0x1*6  RO8   MAC address
STATUS                            0x06  -       RO16  status of the link | LINK_UP 0
MAX_VIRTQUEUE_PAIRS               0x08  -       RO16  the most pairs of queues
SPEED                             0x0C  -       RO    Mbit/s; above 2^31: unknown
RSS_MAX_KEY_SIZE                  0x11  -       RO8   longest key in bytes
RSS_MAX_INDIRECTION_TABLE_LENGTH  0x12  -       RO16  longest table in entries
SUPPORTED_HASH_TYPES              0x14  -       RO    what the device can hash
"""
)
# 4.1.4: types of the structures
COMMON_CFG, NOTIFY_CFG, ISR_CFG, DEVICE_CFG = 1, 2, 3, 4
# 2.2, 5.1.3, 6: features by bit, those that the driver accepts when they are offered
FEATURES = {
    "GUEST_CSUM": 1,
    "MAC": 5,
    "STATUS": 16,
    "CTRL_VQ": 17,
    "CTRL_RX": 18,
    "CTRL_VLAN": 19,
    "CTRL_RX_EXTRA": 20,
    "MQ": 22,
    "CTRL_MAC_ADDR": 23,
    "RING_EVENT_IDX": 29,
    "VERSION_1": 32,
    "ACCESS_PLATFORM": 33,
    "ORDER_PLATFORM": 36,
    "HASH_REPORT": 57,
    "RSS": 60,
    "SPEED_DUPLEX": 63,
}
# 5.1.6.5: commands by class and number
RX_PROMISC, RX_ALLMULTI, RX_ALLUNI = (0, 0), (0, 1), (0, 2)
MAC_TABLE_SET, MAC_ADDR_SET = (1, 0), (1, 1)
VLAN_ADD = (2, 0)
MQ_VQ_PAIRS_SET, MQ_RSS_CONFIG, MQ_HASH_CONFIG = (4, 0), (4, 1), (4, 2)
# 5.1.6.4.3: IPv4, TCPv4, UDPv4, IPv6, TCPv6, UDPv6
HASH_TYPES = 0x3F
OK = 0  # the answer
