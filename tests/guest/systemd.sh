# Prepares systemd as process 1 of a guest: it knows the targets of this machine and one service, which
# runs the commands of the host. So it starts nothing that this machine has enabled, and no service
# cleans or changes a file system.
set -e
units=/usr/lib/systemd/system
cp -r $units /run/units
mount -t tmpfs units $units
cp /run/units/*.target $units
rm -r /run/units
mount -t tmpfs units /etc/systemd/system
mount -t tmpfs generators /usr/lib/systemd/system-generators
echo uninitialized > /etc/machine-id
cp /proc/1/exe /run/guest
cat > $units/guest.target << END
[Unit]
Wants=guest.service
END
cat > $units/guest.service << END
[Unit]
DefaultDependencies=no
[Service]
ExecStart=/run/guest serve
END
