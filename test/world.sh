# Sourced by what needs a machine of its own without one: namespaces for the network, mounts, processes and control groups, with fresh file
# systems over every place that a cluster writes to. `enter_world` starts the calling script again inside; `make_world` furnishes it.

IP=10.89.0.2
export KUBECONFIG=/etc/kubernetes/admin.conf

# Returns only inside, with SCRATCH set; outside it waits and exits.
enter_world() {
  if [ -n "${FERROKUBE_WORLD:-}" ]; then
    SCRATCH=$FERROKUBE_WORLD
    return
  fi
  if [ "$(id -u)" != 0 ]; then
    echo "skipped: $0 needs root for its namespaces"
    exit 0
  fi
  local scratch controller groups=() status
  scratch=$(mktemp -d /tmp/ferrokube-world.XXXXXX)
  # Version-1 control groups of its own, so that deploy/down finds no one else's pods there.
  for controller in /sys/fs/cgroup/*/; do
    [ -e /sys/fs/cgroup/cgroup.controllers ] || [ ! -w "$controller/cgroup.procs" ] || { mkdir "$controller/${scratch##*/}" && groups+=("$controller/${scratch##*/}"); }
  done
  (
    for group in "${groups[@]}"; do
      for file in cpuset.cpus cpuset.mems; do [ ! -e "$group/$file" ] || cat "$group/../$file" >"$group/$file"; done
      echo $BASHPID >"$group/cgroup.procs"
    done
    FERROKUBE_WORLD=$scratch exec unshare --cgroup --mount --net --pid --fork --mount-proc --propagation private "$0" "$@"
  )
  status=$?
  for group in "${groups[@]}"; do find "$group" -depth -type d -exec rmdir {} + 2>/dev/null; done
  if [ $status = 0 ]; then rm -rf "$scratch"; else echo "evidence kept in $scratch"; fi
  exit $status
}

# Fresh file systems over every place that the cluster writes to, and a network of one veth pair.
make_world() {
  local dir
  for dir in /etc/kubernetes /etc/ferrokube /etc/cni /opt/ferrokube /run /var/lib/etcd /var/lib/kubelet /var/lib/kube-proxy \
    /var/lib/ferrokube /var/lib/cni /var/log; do
    mkdir -p "$dir"
    mount -t tmpfs ferrokube-test "$dir"
  done
  # overlayfs cannot lie on every tmpfs and images are large: containerd's root stays on the disk.
  mkdir -p "$SCRATCH/containerd" /var/lib/ferrokube/containerd /run/netns /run/lock
  mount --bind "$SCRATCH/containerd" /var/lib/ferrokube/containerd
  mount --make-rshared /run
  for dir in /sys/fs/cgroup/*; do
    case $dir in
      */unified) umount "$dir" && mount -t cgroup2 cgroup2 "$dir" ;;
      */systemd) umount "$dir" && mount -t cgroup -o none,name=systemd cgroup "$dir" ;;
      *) [ ! -w "$dir/tasks" ] || { umount "$dir" && mount -t cgroup -o "${dir##*/}" cgroup "$dir"; } ;;
    esac
  done
  ip link set lo up
  ip link add ferro0 type veth peer name ferro1 && ip link set ferro1 up && ip link set ferro0 up && ip address add $IP/24 dev ferro0
  ip route add default dev ferro0
}
