"""Put any downsampling operator into any network.

    from invariscope.zoo.surgery import replace_downsampling

    model, table = replace_downsampling(model, "tips", example=torch.zeros(1, 3, 224, 224))

``replace`` is the public call, ``surgeon`` exchanges the modules, ``placement`` reads the network's graph for the place
behind an activation, ``geometry`` and ``convolutions`` keep the windows of what is replaced where they were, ``survey``
looks at a network before and after.
"""

from invariscope.zoo.surgery.replace import replace_downsampling
from invariscope.zoo.surgery.surgeon import Replacement

__all__ = ["Replacement", "replace_downsampling"]
